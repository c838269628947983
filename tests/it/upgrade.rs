//! Promise: a running VMDS is replaced by the installed program, and programs do not notice. A program that cannot take
//! over changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{World, ok, wait_until};

use crate::help::{SOON, world};

/// Source files of the crate that is built: enough for the build to outlast several upgrades.
const MODULES: usize = 40;

/// A number that the controller tells of the only mount.
fn told(world: &World, name: &str) -> u64 {
    fn find(value: &Value, name: &str) -> Option<u64> {
        match value {
            Value::Object(fields) => fields
                .get(name)
                .and_then(Value::as_u64)
                .or_else(|| fields.values().find_map(|field| find(field, name))),
            Value::Array(items) => items.iter().find_map(|item| find(item, name)),
            _ => None,
        }
    }
    let status = world.ctl_json(&["status"]);
    find(&status["mounts"], name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

#[test]
fn a_build_succeeds_while_its_file_system_is_upgraded() {
    let world = world();
    let dir = world.mounted("alice").join("many");
    fs::create_dir_all(dir.join("src")).unwrap();
    let manifest = "[package]\nname = \"many\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    let modules: String = (0..MODULES).map(|n| format!("mod m{n};\n")).collect();
    let calls: String = (0..MODULES).map(|n| format!("total += m{n}::work({n});\n")).collect();
    let main = format!("{modules}fn main() {{ let mut total = 0u64;\n{calls}print!(\"{{total}}\") }}\n");
    fs::write(dir.join("src/main.rs"), main).unwrap();
    for n in 0..MODULES {
        let functions: String = (0..50)
            .map(|f| format!("pub fn f{f}(x: u64) -> u64 {{ x.wrapping_mul({f}) ^ {n} }}\n"))
            .collect();
        let calls: String = (0..50).map(|f| format!(" + f{f}(x) % 2")).collect();
        let module = format!("{functions}pub fn work(x: u64) -> u64 {{ let _ = 0{calls}; 1 }}\n");
        fs::write(dir.join(format!("src/m{n}.rs")), module).unwrap();
    }
    let before = told(&world, "generation");
    let mut build = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--quiet"])
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .spawn()
        .unwrap();
    let mut upgrades = 0;
    while build.try_wait().unwrap().is_none() || upgrades == 0 {
        world.ctl(&["tenant", "upgrade", "--all"]);
        upgrades += 1;
        // Not a wait for anything: the build gets on a little between two upgrades.
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(build.wait().unwrap().success());
    assert_eq!(ok(&mut Command::new(dir.join("target/debug/many"))), MODULES.to_string());
    wait_until("the status tells of the last upgrade", SOON, || {
        told(&world, "generation") == before + upgrades
    });
    world.ctl(&["check"]);
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let mut world = world();
    let copy = world.dir().join("vmds");
    fs::copy(crate::help::binaries().vmds, &copy).unwrap();
    world.stop_controller();
    world.use_vmds(&copy);
    world.start_controller();
    let dir = world.mounted("alice");
    fs::write(dir.join("file"), "text").unwrap();
    let pid = told(&world, "pid");
    fs::rename(&copy, world.dir().join("good")).unwrap();
    fs::write(&copy, "#!/bin/sh\nexit 3\n").unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let said = world.ctl_refuses(&["tenant", "upgrade", "alice"]);
    assert!(said.contains("goes on"), "{said}");
    assert_eq!(told(&world, "pid"), pid);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text");
    fs::rename(world.dir().join("good"), &copy).unwrap();
    world.ctl(&["tenant", "upgrade", "alice"]);
    wait_until("the status tells of the successor", SOON, || told(&world, "pid") != pid);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text");
}

//! Promise: a running VMDS is replaced by the installed program, and programs do not notice. A program that cannot take
//! over changes nothing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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

/// A world whose VMDSes are started from a program of its own. Gives that program.
fn world_with_own_program() -> (World, PathBuf) {
    let mut world = world();
    let copy = world.dir().join("vmds");
    fs::copy(crate::help::binaries().vmds, &copy).unwrap();
    world.stop_controller();
    world.use_vmds(&copy);
    world.start_controller();
    (world, copy)
}

/// Puts a script in the place of a program.
fn replace_by_script(program: &Path, script: &str) {
    let draft = program.with_extension("draft");
    fs::write(&draft, script).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, program).unwrap();
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let (world, copy) = world_with_own_program();
    let dir = world.mounted("alice");
    fs::write(dir.join("file"), "text").unwrap();
    let pid = told(&world, "pid");
    fs::rename(&copy, world.dir().join("good")).unwrap();
    replace_by_script(&copy, "#!/bin/sh\nexit 3\n");
    let said = world.ctl_refuses(&["tenant", "upgrade", "alice"]);
    assert!(said.contains("goes on"), "{said}");
    assert_eq!(told(&world, "pid"), pid);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text");
    fs::rename(world.dir().join("good"), &copy).unwrap();
    world.ctl(&["tenant", "upgrade", "alice"]);
    wait_until("the status tells of the successor", SOON, || told(&world, "pid") != pid);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text");
}

/// A VMDS that works, but tells the kernel of another largest write: its answer to the kernel's first request is changed
/// on the way. The request waits on descriptor 4, the answer goes back there, and then the word to begin comes.
const OTHER_TERMS: &str = "#!/usr/bin/python3
import os, socket, struct, sys
agent = socket.socket(fileno=os.dup(4))
ours, vmds = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.send(agent.recv(65536))
if os.fork() == 0:
    keep = sorted([agent.fileno(), ours.fileno()])
    os.closerange(3, keep[0])
    os.closerange(keep[0] + 1, keep[1])
    os.closerange(keep[1] + 1, 100)
    answer = bytearray(ours.recv(65536))
    largest_write = 36
    before, = struct.unpack_from('<I', answer, largest_write)
    assert before == 1 << 20, before
    struct.pack_into('<I', answer, largest_write, before // 2)
    agent.send(answer)
    word = agent.recv(1)
    if word: ours.send(word)
    os._exit(0)
os.dup2(vmds.fileno(), 4)
os.execv('PROGRAM', ['vmds'] + sys.argv[1:])
";

#[test]
fn a_program_that_agrees_otherwise_with_the_kernel_is_found_out_before_anything_is_stopped() {
    let (world, copy) = world_with_own_program();
    let dir = world.mounted("alice");
    let mut open = fs::File::create(dir.join("file")).unwrap();
    open.write_all(b"te").unwrap();
    let (pid, vmds) = (told(&world, "pid"), world.vmds());
    let good = world.dir().join("good");
    fs::rename(&copy, &good).unwrap();
    replace_by_script(&copy, &OTHER_TERMS.replace("PROGRAM", good.to_str().unwrap()));
    for _ in 0..2 {
        let said = world.ctl_refuses(&["tenant", "upgrade", "alice"]);
        assert!(said.contains("negotiates other features with the kernel"), "{said}");
        assert!(said.contains("unmount and mount again"), "{said}");
    }
    assert!(vmds.is_alive());
    assert_eq!(told(&world, "pid"), pid, "the one before was not even replaced by its like");
    open.write_all(b"xt").unwrap();
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text");
    drop(open);
    // As it was said: mounted anew, it serves.
    world.ctl(&["umount", dir.to_str().unwrap()]);
    world.mount("alice");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text");
}

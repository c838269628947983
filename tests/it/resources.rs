//! Promise: everything is a resource that can be applied, got, watched and deleted, in YAML and JSON; commands are
//! short for that.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::{World, wait_until};

use crate::help::{SOON, items, names, world};

const MANIFEST: &str = "\
apiVersion: vmds/v1
kind: Tenant
metadata:
  name: alice
spec:
  quota:
    bytes: 1GiB
---
apiVersion: vmds/v1
kind: Tenant
metadata: {name: bob}
";

/// Whether the condition of this type is true in the status of a resource.
fn is(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == condition && c["status"] == "True"))
}

fn get(world: &World, kind: &str, name: &str) -> Value {
    world.ctl_json(&["get", kind, name])
}

/// Runs `vmdsctl apply -f -` with a manifest on its standard input.
#[track_caller]
fn apply(world: &World, manifest: &str) {
    let mut command = world.ctl_command(&["apply", "-f", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn manifests_are_applied_and_become_ready() {
    let world = world();
    apply(&world, MANIFEST);
    wait_until("both are ready", SOON, || {
        is(&get(&world, "Tenant", "alice"), "Ready") && is(&get(&world, "tenants", "bob"), "Ready")
    });
    let alice = get(&world, "tenant", "alice");
    assert_eq!((&alice["apiVersion"], &alice["kind"]), (&"vmds/v1".into(), &"Tenant".into()));
    assert_eq!(alice["spec"]["quota"]["bytes"], 1u64 << 30);
    let dir = world.mount("alice");
    let space = rustix::fs::statvfs(&dir).unwrap();
    assert_eq!(space.f_blocks * space.f_frsize, 1 << 30);
}

#[test]
fn a_changed_manifest_changes_what_is_and_the_same_one_nothing() {
    let world = world();
    apply(&world, MANIFEST);
    let dir = world.mount("alice");
    let before = get(&world, "Tenant", "alice");
    apply(&world, MANIFEST);
    assert_eq!(get(&world, "Tenant", "alice")["metadata"], before["metadata"], "nothing to do");
    apply(&world, &MANIFEST.replace("1GiB", "2GiB"));
    let after = get(&world, "Tenant", "alice");
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_u64().unwrap();
    assert!(version(&after) > version(&before));
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"].as_u64().unwrap() + 1);
    wait_until("the new quota is in force", SOON, || {
        let space = rustix::fs::statvfs(&dir).unwrap();
        space.f_blocks * space.f_frsize == 2 << 30
    });
}

#[test]
fn what_is_printed_can_be_applied() {
    let world = world();
    apply(&world, MANIFEST);
    for format in ["json", "yaml"] {
        let printed = world.ctl(&["-o", format, "get", "Tenant", "alice"]);
        apply(&world, &printed);
    }
    let yaml = world.ctl(&["-o", "yaml", "get", "Tenant", "alice"]);
    let value: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(value["spec"], get(&world, "Tenant", "alice")["spec"]);
}

#[test]
fn an_old_version_is_refused() {
    let world = world();
    apply(&world, MANIFEST);
    let file = world.dir().join("old.json");
    let mut old = get(&world, "Tenant", "alice");
    old["spec"]["quota"]["bytes"] = 5.into();
    fs::write(&file, old.to_string()).unwrap();
    apply(&world, &MANIFEST.replace("1GiB", "2GiB"));
    world.ctl_refuses(&["apply", "-f", file.to_str().unwrap()]);
    assert_eq!(get(&world, "Tenant", "alice")["spec"]["quota"]["bytes"], 2u64 << 30);
}

#[test]
fn a_share_and_a_mount_are_resources_too() {
    let world = world();
    let alice = world.mounted("alice");
    world.tenant("bob");
    fs::create_dir(alice.join("d")).unwrap();
    let point = world.dir().join("point");
    fs::create_dir(&point).unwrap();
    apply(
        &world,
        "apiVersion: vmds/v1\nkind: Share\nmetadata: {name: weekly}\nspec:\n  \
         from: {tenant: alice, path: /d}\n  to: {tenant: bob, path: /in/d}\n  rights: readOnly\n",
    );
    wait_until("the share is active", SOON, || is(&get(&world, "Share", "weekly"), "Active"));
    world.mount_at("bob", &point, &[]);
    assert_eq!(names(&point.join("in")), ["d"]);
    let mounts = items(world.ctl_json(&["get", "mounts"]));
    let mount = mounts.iter().find(|m| m["spec"]["tenant"] == "bob").unwrap();
    assert_eq!(mount["spec"]["dir"], point.to_str().unwrap());
    assert!(is(mount, "Ready"));
    world.ctl(&["delete", "Mount", mount["metadata"]["name"].as_str().unwrap()]);
    wait_until("it is unmounted", SOON, || tests::mounts_under(&point).is_empty());
    world.ctl(&["delete", "Share", "weekly"]);
    world.mount_at("bob", &point, &[]);
    assert_eq!(names(&point.join("in")), [""; 0]);
}

#[test]
fn a_watch_tells_every_change() {
    let world = world();
    let mut command = world.ctl_command(&["-o", "json", "watch", "Tenant"]);
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    world.tenant("alice");
    let mut seen = String::new();
    let mut until = |what: &str| {
        while !seen.contains(what) {
            seen += &told.recv_timeout(SOON).unwrap_or_else(|_| panic!("{what} is never told:\n{seen}"));
        }
    };
    until("alice");
    world.tenant("bob");
    until("bob");
    world.ctl(&["tenant", "delete", "alice"]);
    until("eleted");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn every_list_has_three_forms() {
    let world = world();
    world.mounted("alice");
    for verb in
        [&["tenant", "list"][..], &["pool", "list"], &["share", "list"], &["get", "mounts"], &["status"]]
    {
        let with = |format: &str| world.ctl(&[&["-o", format], verb].concat());
        serde_json::from_str::<Value>(&with("json")).unwrap_or_else(|e| panic!("{verb:?}: {e}"));
        serde_saphyr::from_str::<Value>(&with("yaml")).unwrap_or_else(|e| panic!("{verb:?}: {e}"));
        assert!(!with("table").is_empty());
        assert_eq!(with("table"), world.ctl(verb), "a table is what is shown without being asked");
    }
    assert!(world.ctl(&["tenant", "list"]).contains("alice"));
    assert!(world.ctl(&["pool", "list"]).contains("default"));
    assert_eq!(get(&world, "Tenant", "alice"), world.ctl_json(&["tenant", "show", "alice"]));
}

#[test]
fn shells_can_complete() {
    let ctl = crate::help::binaries().ctl;
    for shell in ["bash", "zsh", "fish"] {
        let script = tests::ok(Command::new(&ctl).args(["completions", shell]));
        assert!(script.contains("vmdsctl") && script.contains("revoke"), "{shell}");
    }
}

#[test]
fn help_and_version_are_told_without_a_controller() {
    let binaries = crate::help::binaries();
    for binary in [binaries.ctl, binaries.controller] {
        for flag in ["--help", "--version"] {
            assert!(!tests::ok(Command::new(&binary).arg(flag)).is_empty());
        }
    }
}

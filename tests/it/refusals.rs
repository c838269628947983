//! Promise: what cannot be done is refused with one sentence that says what to do, and nothing has changed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, mount};
use tests::{World, mounts_under, run};

use crate::help::{names, wanted, world};

/// The command is refused, names what it is about, and changes nothing.
#[track_caller]
fn refused(world: &World, arguments: &[&str], about: &str) {
    let before = (wanted(world), mounts_under(world.dir()));
    let said = world.ctl_refuses(arguments);
    assert!(said.contains(about), "'{about}' is not named: {said}");
    assert_eq!((wanted(world), mounts_under(world.dir())), before);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn mounts_that_cannot_be() {
    let world = world();
    let dir = world.mounted("alice");
    world.tenant("bob");
    refused(&world, &["mount", "bob", text(&dir)], text(&dir));
    let missing = world.dir().join("missing");
    refused(&world, &["mount", "bob", text(&missing)], text(&missing));
    assert!(!missing.exists());
    let file = world.dir().join("file");
    fs::write(&file, "").unwrap();
    refused(&world, &["mount", "bob", text(&file)], text(&file));
    let empty = world.dir().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(&world, &["mount", "nobody", text(&empty)], "nobody");
    refused(&world, &["umount", text(&empty)], text(&empty));
    fs::write(dir.join("still"), "works").unwrap();
    assert_eq!(fs::read_to_string(dir.join("still")).unwrap(), "works");
}

#[test]
fn a_busy_umount_names_the_process() {
    let world = world();
    let dir = world.mounted("alice");
    let mut user = Command::new("sleep").arg("1000").current_dir(&dir).stdin(Stdio::null()).spawn().unwrap();
    let before = mounts_under(&dir);
    let said = world.ctl_refuses(&["umount", text(&dir)]);
    assert!(said.contains(&user.id().to_string()), "process {} is not named: {said}", user.id());
    assert_eq!(mounts_under(&dir), before);
    fs::write(dir.join("still"), "works").unwrap();
    user.kill().unwrap();
    user.wait().unwrap();
    world.ctl(&["umount", text(&dir)]);
}

#[test]
fn tenants_that_cannot_be_made_or_deleted() {
    let world = world();
    let dir = world.mounted("alice");
    refused(&world, &["tenant", "create", "alice", "--quota-bytes", "5GiB"], "alice");
    refused(&world, &["tenant", "create", "Not A Name"], "Not A Name");
    refused(&world, &["tenant", "create", "carol", "--pool", "nowhere"], "nowhere");
    refused(&world, &["tenant", "delete", "nobody"], "nobody");
    fs::write(dir.join("file"), "text").unwrap();
    world.ctl(&["umount", text(&dir)]);
    refused(&world, &["tenant", "delete", "alice"], "--purge");
    world.mount("alice");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text");
}

#[test]
fn an_empty_tenant_is_deleted_without_purge() {
    let world = world();
    world.tenant("alice");
    world.ctl(&["tenant", "delete", "alice"]);
    assert!(!world.ctl(&["tenant", "list"]).contains("alice"));
}

#[test]
fn pools_that_cannot_be() {
    let world = world();
    let missing = world.dir().join("missing");
    refused(&world, &["pool", "add", "p", "--posix", text(&missing)], text(&missing));
    let read_only = world.dir().join("read-only");
    fs::create_dir(&read_only).unwrap();
    mount("none", &read_only, "tmpfs", MountFlags::RDONLY, None).unwrap();
    refused(&world, &["pool", "add", "p", "--posix", text(&read_only)], text(&read_only));
    let nested = world.state_dir().join("pool");
    refused(&world, &["pool", "add", "p", "--posix", text(&nested)], "default");
    refused(&world, &["pool", "remove", "nothing"], "nothing");
    world.tenant("alice");
    refused(&world, &["pool", "remove", "default"], "alice");
}

#[test]
fn a_tenant_lives_in_the_pool_it_was_given() {
    let world = world();
    let pool = world.dir().join("second-pool");
    fs::create_dir(&pool).unwrap();
    world.ctl(&["pool", "add", "second", "--posix", text(&pool)]);
    world.ctl(&["tenant", "create", "alice", "--pool", "second"]);
    let dir = world.mount("alice");
    fs::write(dir.join("file"), "in the second pool").unwrap();
    let found = run(Command::new("grep").args(["-rl", "in the second pool"]).arg(&pool));
    assert_eq!(found.stdout.lines().count(), 1, "{found}");
    refused(&world, &["pool", "remove", "second"], "alice");
    world.ctl(&["umount", text(&dir)]);
    world.ctl(&["tenant", "delete", "alice", "--purge"]);
    world.ctl(&["pool", "remove", "second"]);
}

#[test]
fn manifests_that_make_no_sense() {
    let world = world();
    let file = world.dir().join("manifest.yaml");
    for (manifest, about) in [
        ("kind: Tenant\nmetadata: {name: a\n", "manifest.yaml"),
        ("apiVersion: vmds/v1\nkind: Cloud\nmetadata: {name: a}\n", "Cloud"),
        ("apiVersion: vmds/v1\nkind: Tenant\nmetadata: {name: a}\nspec: {quotas: {}}\n", "quotas"),
        (
            "apiVersion: vmds/v1\nkind: Tenant\nmetadata: {name: a}\nspec: {quota: {bytes: much}}\n",
            "quota.bytes",
        ),
        ("apiVersion: vmds/v1\nkind: Tenant\nspec: {}\n", "name"),
    ] {
        fs::write(&file, manifest).unwrap();
        refused(&world, &["apply", "-f", text(&file)], about);
    }
    let none = world.dir().join("none.yaml");
    refused(&world, &["apply", "-f", text(&none)], text(&none));
}

#[test]
fn usage_errors_exit_with_2_before_anything_is_asked() {
    let world = world();
    for arguments in [
        &[][..],
        &["tenant"],
        &["tenant", "create"],
        &["tenants", "create", "x"],
        &["tenant", "create", "x", "--quota-bytes", "much"],
        &["tenant", "create", "x", "--no-such-option"],
        &["mount", "x"],
        &["locate", "no-colon"],
        &["-o", "xml", "tenant", "list"],
        &["completions", "tcl"],
    ] {
        let outcome = run(&mut world.ctl_command(arguments));
        assert_eq!(outcome.code(), 2, "{outcome}");
    }
    assert!(!world.ctl(&["tenant", "list"]).contains(" x "));
    let serve = run(Command::new(crate::help::binaries().controller).arg("serve").arg("--no-such-option"));
    assert_eq!(serve.code(), 2, "{serve}");
}

#[test]
fn vmdsctl_without_a_controller_says_so() {
    let mut world = world();
    world.stop_controller();
    let said = world.ctl_refuses(&["tenant", "list"]);
    assert!(said.contains(text(&world.run_dir())), "{said}");
}

/// Starts another controller; it must end at once with exit code 1. Gives what it said.
#[track_caller]
fn serve_fails(command: &mut Command) -> String {
    let outcome = tests::run_within(crate::help::SOON, command);
    assert_eq!(outcome.code(), 1, "{outcome}");
    assert!(!outcome.stderr.contains("panicked") && !outcome.stderr.contains("ready"), "{outcome}");
    outcome.stderr
}

#[test]
fn a_second_controller_on_the_same_directories_is_refused() {
    let world = world();
    let dir = world.mounted("alice");
    let said = serve_fails(&mut world.serve_command());
    assert!(said.contains(text(&world.state_dir())) || said.contains(text(&world.run_dir())), "{said}");
    let elsewhere = world.dir().join("other-run");
    let binaries = crate::help::binaries();
    let mut same_state = Command::new(&binaries.controller);
    same_state.arg("serve").arg("--state-dir").arg(world.state_dir()).arg("--run-dir").arg(elsewhere);
    let said = serve_fails(same_state.arg("--vmds").arg(&binaries.vmds));
    assert!(said.contains(text(&world.state_dir())), "{said}");
    fs::write(dir.join("still"), "works").unwrap();
    world.ctl(&["tenant", "list"]);
}

/// Files of this name below a directory.
fn find(dir: &Path, name: &str) -> Vec<PathBuf> {
    let found = tests::ok(Command::new("find").arg(dir).args(["-type", "f", "-name", name]));
    found.lines().map(PathBuf::from).collect()
}

#[test]
fn state_of_a_newer_version_is_left_alone() {
    let mut world = world();
    let dir = world.mounted("alice");
    fs::write(dir.join("file"), "text").unwrap();
    world.stop_controller();
    let markers = find(&world.state_dir(), "FORMAT");
    assert!(!markers.is_empty(), "the state says which version wrote it");
    for marker in markers {
        let known = fs::read_to_string(&marker).unwrap();
        fs::write(&marker, "99\n").unwrap();
        let said = serve_fails(&mut world.serve_command());
        assert!(said.contains("newer") && said.contains("99"), "{said}");
        assert_eq!(fs::read_to_string(&marker).unwrap(), "99\n");
        fs::write(&marker, known).unwrap();
    }
    assert_eq!(mounts_under(world.dir()), []);
    world.start_controller();
    world.await_mounts(1);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "text");
}

#[test]
fn a_controller_that_cannot_work_says_why() {
    let mut world = world();
    world.stop_controller();
    let binaries = crate::help::binaries();
    let missing = world.dir().join("no-vmds");
    let mut no_vmds = Command::new(&binaries.controller);
    no_vmds.arg("serve").arg("--state-dir").arg(world.state_dir()).arg("--run-dir").arg(world.run_dir());
    let said = serve_fails(no_vmds.arg("--vmds").arg(&missing));
    assert!(said.contains(text(&missing)), "{said}");
    let file = world.dir().join("a-file");
    fs::write(&file, "").unwrap();
    let mut bad_state = Command::new(&binaries.controller);
    bad_state.arg("serve").arg("--state-dir").arg(&file).arg("--run-dir").arg(world.run_dir());
    let said = serve_fails(bad_state.arg("--vmds").arg(&binaries.vmds));
    assert!(said.contains(text(&file)), "{said}");
    world.start_controller();
}

#[test]
fn only_root_serves() {
    let world = world();
    let copy = world.dir().join("controller");
    fs::copy(crate::help::binaries().controller, &copy).unwrap();
    let mut command = Command::new(&copy);
    let own = world.dir().join("own");
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(1234), Some(1234)).unwrap();
    command.arg("serve").arg("--state-dir").arg(own.join("state")).arg("--run-dir").arg(own.join("run"));
    let said = serve_fails(command.arg("--vmds").arg(crate::help::binaries().vmds).uid(1234));
    assert!(said.contains("root"), "{said}");
    assert_eq!(names(&own), [""; 0]);
}

#[test]
fn a_mount_point_with_files_keeps_them_underneath() {
    let world = world();
    let dir = world.mount_point("alice");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("below"), "text").unwrap();
    world.tenant("alice");
    let dir = world.mount("alice");
    assert_eq!(names(&dir), [""; 0]);
    world.ctl(&["umount", text(&dir)]);
    assert_eq!(names(&dir), ["below"]);
}

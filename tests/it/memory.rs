//! Promise: what a VMDS may use of the node's memory is bounded, and a bound that is small is enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tests::{Process, World, wait_for, wait_until};

use crate::help::{SOON, names, world};

const MIB: u64 = 1 << 20;

/// A condition of the only tenant: whether it holds, and what is said about it.
fn condition(world: &World, kind: &str) -> (String, String) {
    let tenant = world.ctl_json(&["tenant", "show", "alice"]);
    let conditions = tenant["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    let text = |field: &str| found.map_or_else(String::new, |c| c[field].as_str().unwrap().to_owned());
    (text("status"), text("message"))
}

/// The control group that bounds the tenant's mount, as the tenant's status tells it.
fn group(world: &World) -> PathBuf {
    let (_, message) = wait_for("the status tells the bound", SOON, || {
        Some(condition(world, "MemoryBounded")).filter(|(status, _)| status == "True")
    });
    message.rsplit_once(' ').unwrap().1.into()
}

fn number(group: &Path, files: [&str; 2]) -> u64 {
    let text = files.iter().find_map(|file| fs::read_to_string(group.join(file)).ok());
    text.unwrap_or_else(|| panic!("{} has none of {files:?}", group.display())).trim().parse().unwrap()
}

fn limit(group: &Path) -> u64 {
    number(group, ["memory.max", "memory.limit_in_bytes"])
}

fn is_in(group: &Path, process: Process) -> bool {
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    pids.lines().any(|pid| pid == process.pid.to_string())
}

fn bounded(world: &World, memory: &str) -> PathBuf {
    world.tenant_with("alice", &["--memory", memory]);
    world.mount("alice")
}

#[test]
fn every_vmds_of_a_mount_is_in_a_group_that_goes_with_the_mount() {
    let mut world = world();
    let dir = bounded(&world, "32MiB");
    let group = group(&world);
    assert_eq!(limit(&group), 32 * MIB);
    assert!(is_in(&group, world.vmds()));
    let first = world.vmds();
    first.kill();
    wait_until("there is another", SOON, || fs::read_dir(&dir).is_ok() && world.vmds() != first);
    assert!(is_in(&group, world.vmds()), "its successor too");
    world.crash_controller();
    assert_eq!(limit(&group), 32 * MIB);
    let dir = dir.to_str().unwrap();
    world.ctl(&["umount", dir]);
    assert!(!group.exists(), "{} is left", group.display());
}

#[test]
fn a_controller_removes_the_groups_of_mounts_that_died_with_the_one_before() {
    let mut world = world();
    let dir = bounded(&world, "32MiB");
    let (group_before, vmds) = (group(&world), world.vmds());
    world.kill_controller();
    vmds.kill();
    world.start_controller();
    wait_until("the mount is back", SOON, || fs::read_dir(&dir).is_ok());
    assert!(!group_before.exists(), "{} is left", group_before.display());
    assert!(is_in(&group(&world), world.vmds()));
}

#[test]
fn another_bound_holds_without_unmounting() {
    let world = world();
    let dir = bounded(&world, "32MiB");
    let group = group(&world);
    let held = fs::File::create(dir.join("held")).unwrap();
    let mut tenant = world.ctl_json(&["get", "tenant", "alice"]);
    tenant["spec"]["memory"] = Value::from(64 * MIB);
    let manifest = world.dir().join("alice.json");
    fs::write(&manifest, tenant.to_string()).unwrap();
    world.ctl(&["apply", "-f", manifest.to_str().unwrap()]);
    wait_until("the new bound holds", SOON, || limit(&group) == 64 * MIB);
    drop(held);
    assert_eq!(names(&dir), ["held"]);
}

#[test]
fn a_vmds_with_little_memory_serves_a_large_tree() {
    const MANY: usize = 100_000;
    let world = world();
    let dir = bounded(&world, "32MiB").join("large");
    let group = group(&world);
    let vmds = world.vmds();
    fs::create_dir(&dir).unwrap();
    for number in 0..MANY {
        let path = dir.join(format!("a-file-with-a-name-that-is-not-short-{number:06}"));
        mknodat(CWD, path, FileType::RegularFile, Mode::from_raw_mode(0o644), 0).unwrap();
    }
    for _ in 0..2 {
        let found = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        assert_eq!(found.count(), MANY);
    }
    assert_eq!(world.vmds(), vmds, "no VMDS had to be ended");
    let most = number(&group, ["memory.peak", "memory.max_usage_in_bytes"]);
    println!("most memory ever used: {most} bytes");
    assert!(most <= 32 * MIB);
}

/// Uses up the memory of the group, with memory that does not count as its own when the kernel looks for a victim.
fn hog(group: &Path) -> Child {
    let program = "import os\n\
        open(os.environ['GROUP'] + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
        taken = os.memfd_create('taken')\n\
        while True: os.write(taken, bytes(1 << 20))";
    let mut command = Command::new("python3");
    command.args(["-c", program]).env("GROUP", group).stdin(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_vmds_that_needs_more_memory_than_it_may_is_replaced_and_the_status_says_so() {
    let world = world();
    let dir = bounded(&world, "32MiB");
    fs::write(dir.join("file"), "text").unwrap();
    let (group, vmds) = (group(&world), world.vmds());
    // The kernel ends this one first.
    fs::write(format!("/proc/{}/oom_score_adj", vmds.pid), "1000").unwrap();
    let mut hog = hog(&group);
    let ended = std::panic::catch_unwind(|| wait_until("the kernel ends it", SOON, || !vmds.is_alive()));
    // It may have been next.
    let _ = hog.kill();
    hog.wait().unwrap();
    assert!(ended.is_ok(), "the bound does not hold");
    wait_until("there is another", SOON, || {
        fs::read_to_string(dir.join("file")).is_ok_and(|text| text == "text")
    });
    wait_until("the status says why", SOON, || {
        condition(&world, "Serving").1.contains("needed more memory than 32MiB")
    });
    assert!(is_in(&group, world.vmds()));
}

//! Promise: programs do not wait for ever for a VMDS that answers nothing.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::{FarDirectory, Hangs, World, wait_for, wait_until};

use crate::help::{SOON, binaries, items, world};

/// After this long something is not bounded.
const BOUND: Duration = Duration::from_secs(150);

/// Longer than it takes to notice that a VMDS gives no sign of life.
const NOTICED_WITHIN: Duration = Duration::from_secs(16);

/// Makes a file, elsewhere: it may take a while.
fn begin_write(path: PathBuf) -> Receiver<io::Result<()>> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(fs::write(path, "written"));
    });
    told
}

/// What is said about the only mount.
fn message(world: &World) -> String {
    let mounts = items(world.ctl_json(&["get", "mounts"]));
    mounts[0]["status"]["conditions"].to_string()
}

#[test]
fn a_vmds_that_is_stopped_is_replaced_and_programs_go_on() {
    let world = world();
    let dir = world.mounted("alice");
    fs::write(dir.join("before"), "before").unwrap();
    let stopped = world.vmds();
    stopped.signal(Signal::STOP);
    let written = begin_write(dir.join("file"));
    written.recv_timeout(BOUND).expect("programs wait for a VMDS that is stopped").unwrap();
    assert_ne!(world.vmds(), stopped);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "written");
    assert_eq!(fs::read_to_string(dir.join("before")).unwrap(), "before");
    wait_until("the reason is told", SOON, || message(&world).contains("no sign of life"));
}

#[test]
fn a_vmds_that_is_stopped_while_nobody_waits_is_left_alone() {
    let world = world();
    let dir = world.mounted("alice");
    let stopped = world.vmds();
    stopped.signal(Signal::STOP);
    // Another tenant comes and goes meanwhile; longer than it would take to find this one silent.
    let other = world.mounted("bob");
    fs::write(other.join("file"), "written").unwrap();
    let since = Instant::now();
    wait_until("it would have been noticed", BOUND, || since.elapsed() > NOTICED_WITHIN);
    assert!(stopped.is_alive());
    stopped.signal(Signal::CONT);
    fs::write(dir.join("file"), "written").unwrap();
    assert!(world.vmdses().contains(&stopped));
}

#[test]
fn a_vmds_that_is_killed_while_its_storage_hangs_is_replaced_although_it_lingers() {
    let far = FarDirectory::mount();
    let config = far.path().with_file_name("config.toml");
    fs::write(&config, "pool_timeout = '1s'\n").unwrap();
    let world = World::start_with(binaries(), &["--config", config.to_str().unwrap()]);
    world.ctl(&["pool", "add", "far", "--posix", far.path().to_str().unwrap()]);
    world.ctl(&["tenant", "create", "alice", "--pool", "far"]);
    let dir = world.mount("alice");
    fs::write(dir.join("file"), vec![1; 1 << 20]).unwrap();
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    let hanging = far.hang(Hangs::Bytes);
    let (file, (tell, told)) = (dir.join("file"), mpsc::channel());
    thread::spawn(move || {
        let _ = tell.send(fs::read(file).map(drop));
    });
    told.recv_timeout(BOUND).expect("the read has a deadline").unwrap_err();
    // Its thread sits in the kernel: the process cannot end.
    let killed = world.vmds();
    killed.signal(Signal::KILL);
    let (made, (tell, told)) = (dir.join("directory"), mpsc::channel());
    thread::spawn(move || {
        let _ = tell.send(fs::create_dir(made));
    });
    told.recv_timeout(BOUND).expect("the mount is served by another VMDS").unwrap();
    assert!(Path::new(&format!("/proc/{}", killed.pid)).exists(), "it was to linger");
    drop(hanging);
    wait_until("it is gone", SOON, || !Path::new(&format!("/proc/{}", killed.pid)).exists());
    assert_eq!(fs::read(dir.join("file")).unwrap(), vec![1; 1 << 20]);
    world.ctl(&["check"]);
}

#[test]
fn programs_that_wait_for_a_vmds_that_cannot_be_started_get_an_error_and_the_mount_comes_back() {
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = scratch.path().join("vmds");
    fs::copy(binaries().vmds, &program).unwrap();
    let world = World::start(tests::Binaries { vmds: program.clone(), ..binaries() });
    let dir = world.mounted("alice");
    fs::write(dir.join("before"), "before").unwrap();
    let (vmds, good) = (world.vmds(), scratch.path().join("good"));
    fs::rename(&program, &good).unwrap();
    fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    vmds.kill();
    let error = begin_write(dir.join("file")).recv_timeout(BOUND).expect("programs wait for ever");
    error.expect_err("nobody was there to write it");
    fs::rename(&good, &program).unwrap();
    wait_for("the mount is made anew", BOUND, || fs::read_to_string(dir.join("before")).ok());
    fs::write(dir.join("after"), "after").unwrap();
    assert!(message(&world).contains("no VMDS answered"), "{}", message(&world));
    world.vmds();
}

#[test]
fn a_mount_whose_vmds_takes_its_time_holds_up_no_other() {
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (program, slow, slowed) = (at("vmds"), at("slow"), at("slowed"));
    // The one that finds the file waits until it is removed at its new place.
    let script = format!(
        "#!/bin/sh\n/bin/mv {0}/slow {0}/slowed 2>/dev/null && while [ -e {0}/slowed ]; do /bin/sleep 0.1; done\n\
         exec {1} \"$@\"\n",
        scratch.path().display(),
        binaries().vmds.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let world = World::start(tests::Binaries { vmds: program, ..binaries() });
    world.tenant("slow");
    let quick = world.mounted("quick");
    fs::write(&slow, "").unwrap();
    let dir = world.mount_point("slow");
    fs::create_dir_all(&dir).unwrap();
    let mut mounting = world.ctl_command(&["mount", "slow", dir.to_str().unwrap()]);
    let mut mounting = mounting.spawn().unwrap();
    wait_until("its VMDS is being started", SOON, || slowed.exists());
    // Everybody else is served while it is waited for.
    world.ctl(&["status"]);
    world.mounted("later");
    world.ctl(&["umount", quick.to_str().unwrap()]);
    assert!(mounting.try_wait().unwrap().is_none(), "it was to be slow");
    fs::remove_file(&slowed).unwrap();
    assert!(mounting.wait().unwrap().success());
    fs::write(dir.join("file"), "written").unwrap();
}

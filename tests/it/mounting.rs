//! Promise: mounts have the options they were given, change them while in use, and work with `mount(8)`.

use std::env;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use tests::{World, mounts_under, ok, run, run_within, wait_until};

use crate::help::{SOON, assert_errno, binaries, world};

/// Says that a test runs in a mount name space of its own.
const INSIDE: &str = "VMDS_TEST_INSIDE";
/// Longest time of a test in a name space of its own.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs the test `name` again in a mount name space of its own: what `body` mounts vanishes with it.
#[track_caller]
fn in_own_name_space(name: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let outcome = run_within(PATIENCE, &mut command);
    assert!(outcome.status.success() && outcome.stdout.contains("1 passed"), "{outcome}");
}

/// Puts the helpers of `mount(8)` where it looks for them. Nothing else is left there.
fn install_helpers(world: &World) {
    let dir = world.dir().join("sbin");
    fs::create_dir(&dir).unwrap();
    for name in ["mount.fuse.vmds", "umount.fuse.vmds"] {
        symlink(binaries().ctl, dir.join(name)).unwrap();
    }
    rustix::mount::mount_bind(&dir, fs::canonicalize("/sbin").unwrap()).unwrap();
}

#[track_caller]
fn options(dir: &Path) -> Vec<String> {
    match &mounts_under(dir)[..] {
        [mount] => mount.options.split(',').map(str::to_owned).collect(),
        others => panic!("expected one mount: {others:?}"),
    }
}

#[track_caller]
fn assert_options(dir: &Path, expected: &[&str]) {
    let options = options(dir);
    for option in expected {
        assert!(options.iter().any(|o| o == option), "{option} is missing: {options:?}");
    }
}

/// Runs `mount` or `umount`; gives its exit code and what it complained about.
fn system(world: &World, line: &str) -> (i32, String) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env("VMDS_RUN_DIR", world.run_dir());
    let outcome = run(&mut command);
    (outcome.code(), outcome.stderr)
}

#[test]
fn the_systems_mount_and_umount_work() {
    in_own_name_space("mounting::the_systems_mount_and_umount_work", || {
        let world = world();
        install_helpers(&world);
        world.tenant("alice");
        let dir = world.mount_point("alice");
        fs::create_dir_all(&dir).unwrap();
        let at = dir.display();
        let works = |line: &str| assert_eq!(system(&world, line), (0, String::new()), "{line}");

        works(&format!("mount -t fuse.vmds vmds#alice {at} -o ro,noexec,nofail,_netdev,x-systemd.automount"));
        assert_options(&dir, &["ro", "noexec", "nosuid", "nodev"]);
        works(&format!("mount -o remount,rw {at}"));
        assert_options(&dir, &["rw", "noexec"]);
        fs::write(dir.join("file"), "text").unwrap();

        // What is in use for writing does not become read-only, and stays as it was.
        let writer = OpenOptions::new().write(true).open(dir.join("file")).unwrap();
        let (code, said) = system(&world, &format!("mount -o remount,ro {at}"));
        assert!(code == 32 && said.contains("open for writing"), "{code}: {said}");
        assert_options(&dir, &["rw", "noexec"]);
        drop(writer);
        works(&format!("mount -o remount,ro,exec {at}"));
        assert_errno(fs::write(dir.join("file"), ""), Errno::ROFS);
        assert!(!options(&dir).contains(&"noexec".to_owned()));
        assert!(world.ctl(&["get", "mounts"]).contains("ro"));

        let reader = File::open(dir.join("file")).unwrap();
        let (code, said) = system(&world, &format!("umount {at}"));
        assert!(code == 32 && said.contains("in use by"), "{code}: {said}");
        drop(reader);
        works(&format!("umount {at}"));
        assert_eq!(mounts_under(&dir), []);
        assert!(!world.ctl(&["get", "mounts"]).contains("alice"));
        world.ctl(&["check"]);
    });
}

#[test]
fn a_line_in_fstab_mounts_a_tenant() {
    in_own_name_space("mounting::a_line_in_fstab_mounts_a_tenant", || {
        let world = world();
        install_helpers(&world);
        world.tenant("alice");
        world.tenant("bob");
        let [alice, bob] = ["alice", "bob"].map(|tenant| {
            let dir = world.mount_point(tenant);
            fs::create_dir_all(&dir).unwrap();
            dir
        });
        let fstab = world.dir().join("fstab");
        let line = |tenant: &str, dir: &Path, options: &str| {
            format!("{tenant} {} fuse.vmds {options} 0 0\n", dir.display())
        };
        let requires = "nofail,_netdev,x-systemd.requires=vmds-controller.service";
        let alice_line = line("vmds#alice", &alice, &format!("noatime,{requires}"));
        let bob_line = line("bob", &bob, &format!("defaults,ro,run_dir={}", world.run_dir().display()));
        fs::write(&fstab, alice_line + &bob_line + &line("nobody", &alice, "noauto")).unwrap();
        let table = fstab.display();
        assert_eq!(system(&world, &format!("mount -a -T {table} -t fuse.vmds")), (0, String::new()));
        assert_options(&alice, &["rw", "noatime", "nosuid", "nodev"]);
        assert_options(&bob, &["ro", "relatime"]);
        for dir in [&alice, &bob] {
            assert_eq!(system(&world, &format!("umount -l {}", dir.display())), (0, String::new()));
            assert_eq!(mounts_under(dir), []);
        }
        for (line, code, why) in [
            (format!("mount -t fuse.vmds vmds#carol {}", alice.display()), 32, "carol"),
            (format!("mount -t fuse.vmds vmds#alice {} -o strictatime", alice.display()), 1, "strictatime"),
            (format!("mount -t fuse.vmds vmds#alice {} -o uid=3", alice.display()), 1, "uid=3"),
            (format!("mount -t fuse.vmds vmds#alice {}/missing", alice.display()), 32, "missing"),
        ] {
            let (found, said) = system(&world, &line);
            assert!(found == code && said.contains(why), "{line}: {found}, {said}");
        }
        assert_eq!(mounts_under(&alice), []);
    });
}

/// A program of root's with the set-user-id bit, run as somebody else: who it acts as.
fn acts_as(dir: &Path) -> String {
    ok(Command::new(dir.join("id")).arg("-u").uid(1234)).trim().to_owned()
}

fn reads_device(dir: &Path) -> bool {
    File::open(dir.join("zero")).is_ok()
}

/// A tree with a set-user-id program and a device, mounted at two directories.
fn mounted_twice(world: &World) -> [PathBuf; 2] {
    let first = world.mounted("alice");
    let second = world.dir().join("second");
    fs::create_dir(&second).unwrap();
    world.mount_at("alice", &second, &["--options", "ro,suid,dev"]);
    fs::set_permissions(&first, Permissions::from_mode(0o755)).unwrap();
    fs::copy("/usr/bin/id", first.join("id")).unwrap();
    fs::set_permissions(first.join("id"), Permissions::from_mode(0o4755)).unwrap();
    mknodat(CWD, first.join("zero"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 5))
        .unwrap();
    [first, second]
}

#[test]
fn options_belong_to_a_directory_and_change_while_it_is_in_use() {
    let world = world();
    let [first, second] = mounted_twice(&world);
    assert_options(&first, &["rw", "nosuid", "nodev"]);
    assert_errno(fs::write(second.join("file"), ""), Errno::ROFS);
    fs::write(first.join("file"), "").unwrap();
    // `id -u` tells the effective user.
    assert_eq!((acts_as(&first), acts_as(&second)), ("1234".to_owned(), "0".to_owned()));
    assert_eq!((reads_device(&first), reads_device(&second)), (false, true));

    let open = File::open(first.join("file")).unwrap();
    let change = |dir: &Path, list: &str| {
        let dir = dir.to_str().unwrap();
        world.ctl(&["mount", "alice", dir, "--options", &format!("remount,{list}")]);
    };
    change(&first, "suid,dev,noatime");
    change(&second, "rw,nosuid,nodev,noexec");
    assert_eq!(acts_as(&first), "0");
    assert_eq!((reads_device(&first), reads_device(&second)), (true, false));
    assert_errno(Command::new(second.join("id")).spawn(), Errno::ACCESS);
    fs::write(second.join("file"), "through the second").unwrap();
    assert_eq!(fs::read_to_string(first.join("file")).unwrap(), "through the second");
    assert_options(&first, &["rw", "noatime"]);
    change(&first, "atime,ro");
    assert_options(&first, &["ro", "relatime"]);
    assert_options(&second, &["rw", "nosuid", "nodev", "noexec"]);
    drop(open);
}

#[test]
fn changed_options_outlive_a_restart() {
    let mut world = world();
    let dir = world.mounted("alice");
    let at = dir.to_str().unwrap().to_owned();
    world.ctl(&["mount", "alice", &at, "--options", "remount,ro,noexec"]);
    world.crash_controller();
    assert_options(&dir, &["ro", "noexec"]);
    world.restart_controller();
    assert_options(&dir, &["ro", "noexec"]);
    world.ctl(&["mount", "alice", &at, "--options", "remount,rw"]);
    assert_options(&dir, &["rw", "noexec"]);
}

#[test]
fn what_somebody_else_unmounts_is_mounted_again() {
    let world = world();
    let first = world.mounted("alice");
    let second = world.dir().join("second");
    fs::create_dir(&second).unwrap();
    world.mount_at("alice", &second, &["--options", "ro"]);
    fs::write(first.join("file"), "text").unwrap();
    // The controller may have a look at it at that moment.
    let unmount = |dir: &Path| {
        let unmounted = || rustix::mount::unmount(dir, rustix::mount::UnmountFlags::empty()).is_ok();
        wait_until("nobody uses it", SOON, unmounted);
    };
    let is_back = |dir: &Path| mounts_under(dir).len() == 1 && dir.join("file").exists();
    for dirs in [&[&first][..], &[&second], &[&first, &second]] {
        dirs.iter().for_each(|dir| unmount(dir));
        // Options are set a moment after a directory is there.
        let is_as_wanted =
            |dir: &Path, option: &str| is_back(dir) && options(dir).iter().any(|o| o == option);
        wait_until("what is wanted is there again", SOON, || {
            is_as_wanted(&first, "rw") && is_as_wanted(&second, "ro")
        });
    }
    world.await_mounts(2);
    world.ctl(&["umount", first.to_str().unwrap()]);
    assert_eq!(mounts_under(&first), []);
    assert!(is_back(&second));
    world.ctl(&["check"]);
}

#[test]
fn a_remount_past_the_controller_concerns_the_whole_file_system() {
    let world = world();
    let first = world.mounted("alice");
    let second = world.dir().join("second");
    fs::create_dir(&second).unwrap();
    world.mount_at("alice", &second, &[]);
    // Without the helper `mount(8)` asks the kernel itself.
    let remount = |options: &str| {
        let line = format!("mount -i -o remount,{options} {}", first.display());
        assert_eq!(system(&world, &line), (0, String::new()));
    };
    remount("ro");
    for dir in [&first, &second] {
        assert_errno(fs::write(dir.join("file"), ""), Errno::ROFS);
    }
    remount("rw");
    for dir in [&first, &second] {
        fs::write(dir.join("file"), "").unwrap();
    }
}

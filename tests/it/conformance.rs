//! Promise: suites that nobody here wrote find a normal file system. `tests/run` installs them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::{Outcome, World, full, run_within};

use crate::help::world;

/// Longest time one suite may take; one seed of `fsx` in full takes minutes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Operations of `fsx` per seed, every day and in full.
const FSX_OPERATIONS: (u32, u32) = (10_000, 1_000_000);

/// A program that `tests/run` installs.
fn tool(name: &str) -> PathBuf {
    let root = std::env::var_os("VMDS_TOOLS").map(PathBuf::from);
    let root = root.unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("a home directory")).join(".cache/vmds/tools")
    });
    let path = root.join("bin").join(name);
    assert!(path.exists(), "{} is missing: `tests/run` installs it", path.display());
    path
}

/// A directory of the mount in which everybody may do everything.
fn open_to_all(dir: &Path) -> PathBuf {
    let dir = dir.join("suite");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    dir
}

/// The features that ext4 is tested with, and two more that it has.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
REMOUNT
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;
/// What those tests of `pjdfstest` are called that need a read-only file system and remount it for that. They run
/// apart from the others: a file system is not made read-only while a file that was just closed is being let go of.
const REMOUNTING: &str = "erofs";
/// How often such a test is tried when it has found that.
const REMOUNTING_MAX: u32 = 5;
/// All tests of `pjdfstest`.
const PJDFSTESTS: usize = 398;
/// Tests of `pjdfstest` that skip themselves on a mount; `docs/SEMANTICS.md` says why.
const SKIPPED: [&str; 1] = ["link::link_count_max"];

/// The tests of a run of `pjdfstest` that ended in this way.
fn ended<'a>(outcome: &'a Outcome, how: &str) -> Vec<&'a str> {
    let lines = outcome.stdout.lines().filter_map(|line| line.strip_suffix(how));
    lines.map(str::trim_end).filter(|name| name.contains("::")).collect()
}

/// A directory with a `mount` that asks the kernel itself. Helpers that other packages have installed for FUSE know
/// nothing of these mounts.
fn past_helpers(world: &World) -> PathBuf {
    let dir = world.dir().join("bin");
    let program = dir.join("mount");
    fs::create_dir(&dir).unwrap();
    fs::write(&program, "#!/bin/sh\nPATH=${PATH#*:} exec mount -i \"$@\"\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    dir
}

fn pjdfstest(world: &World, mount: &Path) {
    let dir = open_to_all(mount);
    let config = world.dir().join("pjdfstest.toml");
    let elsewhere = world.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o777)).unwrap();
    let path = format!("{}:{}", past_helpers(world).display(), std::env::var("PATH").unwrap());
    let run = |settings: &str, patterns: &[&str]| {
        fs::write(&config, PJDFSTEST.replace("REMOUNT", settings)).unwrap();
        let mut command = Command::new(tool("pjdfstest"));
        command.args(["-c".as_ref(), config.as_os_str(), "-p".as_ref(), dir.as_os_str()]);
        command.args(["-s".as_ref(), elsewhere.as_os_str()]).args(patterns);
        run_within(PATIENCE, command.env("PATH", &path).current_dir(&dir))
    };
    let all = run("allow_remount = false", &[]);
    assert_eq!(ended(&all, "FAILED"), [""; 0], "{all}");
    let (remounting, skipped): (Vec<&str>, _) =
        ended(&all, "skipped").into_iter().partition(|name| name.contains(REMOUNTING));
    assert_eq!(skipped, SKIPPED, "{all}");
    for test in &remounting {
        let is_busy = |outcome: &Outcome| outcome.to_string().contains("mount point is busy");
        let mut tries = (0..REMOUNTING_MAX).map(|_| run("allow_remount = true", &[test]));
        let outcome = tries.find(|outcome| !is_busy(outcome)).expect("the mount is busy only for a moment");
        assert!(outcome.status.success() && ended(&outcome, "ok").contains(test), "{outcome}");
    }
    let passed = ended(&all, "ok").len() + remounting.len();
    println!("pjdfstest: {passed} passed, {} of them remounting; skipped {skipped:?}", remounting.len());
    assert_eq!(passed + skipped.len(), PJDFSTESTS, "{all}");
    world.ctl(&["check"]);
}

/// Weights of reading and of writing through a mapping. What `fsx` has mapped to read it never gives back: every cut of the
/// file looks through all of it, and the kernel allows a process 65,530 mappings.
const MAPPED: (&str, &str) = ("0.5", "5");
/// Weights without mappings.
const NONE: (&str, &str) = ("0", "0");
const FSX: &str = r#"
flen = 262144
[opsize]
min = 1
max = 65536
[weights]
close_open = 1
read = 10
write = 10
mapread = READ_MAPPED
mapwrite = WRITE_MAPPED
truncate = 5
invalidate = 1
punch_hole = 3
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 2
copy_file_range = 3
sendfile = 1
"#;

/// Random reads, writes, cuts and copies, compared with what they leave in memory; with and without mappings.
fn fsx(world: &World, dir: &Path) {
    let operations = if full() { FSX_OPERATIONS.1 } else { FSX_OPERATIONS.0 };
    let config = world.dir().join("fsx.toml");
    let runs = [(1, MAPPED), (2, MAPPED), (3, NONE)];
    for (seed, (read, write)) in runs {
        fs::write(&config, FSX.replace("READ_MAPPED", read).replace("WRITE_MAPPED", write)).unwrap();
        let file = dir.join(format!("fsx-{seed}"));
        let mut command = Command::new(tool("fsx"));
        command.args(["-q", "-N", &operations.to_string(), "-S", &seed.to_string(), "-f"]);
        command.args([&config, &file]).arg("-P").arg(world.dir());
        let outcome = run_within(PATIENCE, &mut command);
        assert!(outcome.status.success(), "seed {seed}, weights of mappings {read} and {write}: {outcome}");
        fs::remove_file(file).unwrap();
    }
    world.ctl(&["check"]);
}

#[test]
fn what_pjdfstest_skips_is_public() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SEMANTICS.md")).unwrap();
    for name in SKIPPED {
        let (_, name) = name.rsplit_once("::").unwrap();
        assert!(
            text.contains(&format!("* `{name}`")),
            "docs/SEMANTICS.md does not say why {name} is skipped"
        );
    }
}

#[test]
fn pjdfstest_finds_what_it_finds_on_ext4() {
    let world = world();
    world.tenant("alice");
    let dir = world.mounted("alice");
    world.ctl(&["umount", dir.to_str().unwrap()]);
    world.mount_at("alice", &dir, &["--suid", "--dev"]);
    pjdfstest(&world, &dir);
}

#[test]
fn pjdfstest_finds_the_same_with_a_quota() {
    let world = world();
    world.tenant_with("alice", &["--quota-bytes", "10GiB", "--quota-inodes", "100000"]);
    let dir = world.mount_point("alice");
    fs::create_dir_all(&dir).unwrap();
    world.mount_at("alice", &dir, &["--suid", "--dev"]);
    pjdfstest(&world, &dir);
}

#[test]
fn fsx_reads_what_it_wrote() {
    let world = world();
    fsx(&world, &world.mounted("alice"));
}

#[test]
fn fsx_reads_what_it_wrote_with_a_quota() {
    let world = world();
    world.tenant_with("alice", &["--quota-bytes", "1GiB"]);
    fsx(&world, &world.mount("alice"));
}

#[test]
fn fsx_reads_what_it_wrote_through_a_share() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("set")).unwrap();
    world.ctl(&["share", "grant", "alice:/set", "bob:/set", "--rw"]);
    fsx(&world, &bob.join("set"));
}

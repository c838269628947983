//! Promise: suites that nobody here wrote find a normal file system. `tests/run` installs them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::{World, run_within};

use crate::help::world;

/// Longest time one suite may take.
const PATIENCE: Duration = Duration::from_secs(1200);
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

fn is_full() -> bool {
    std::env::var_os("VMDS_TEST_FULL").is_some()
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
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;

fn pjdfstest(world: &World, mount: &Path) {
    let dir = open_to_all(mount);
    let config = world.dir().join("pjdfstest.toml");
    fs::write(&config, PJDFSTEST).unwrap();
    let elsewhere = world.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(tool("pjdfstest"));
    command.args(["-c".as_ref(), config.as_os_str(), "-p".as_ref(), dir.as_os_str()]);
    command.args(["-s".as_ref(), elsewhere.as_os_str()]);
    command.current_dir(&dir);
    let outcome = run_within(PATIENCE, &mut command);
    let failed: Vec<_> = outcome.stdout.lines().filter(|line| line.ends_with("FAILED")).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", outcome.stderr);
    let summary = outcome.stdout.lines().find(|line| line.starts_with("Summary:")).expect("a summary");
    println!("pjdfstest: {summary}");
    let passed = summary.split(", ").find_map(|part| part.strip_suffix(" passed")).expect("a count");
    // What is skipped needs a file system that can be mounted read-only by the suite, or 65,000 links.
    assert!(passed.parse::<u32>().unwrap() >= 384, "{summary}");
    world.ctl(&["check"]);
}

const FSX: &str = r#"
flen = 262144
[opsize]
max = 65536
[weights]
close_open = 1
read = 10
write = 10
mapread = 5
mapwrite = MAPWRITE
truncate = 5
invalidate = 1
punch_hole = 3
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 2
copy_file_range = 3
sendfile = 1
"#;

fn fsx(world: &World, dir: &Path, mapped_writes: bool) {
    let operations = if is_full() { FSX_OPERATIONS.1 } else { FSX_OPERATIONS.0 };
    let config = world.dir().join("fsx.toml");
    fs::write(&config, FSX.replace("MAPWRITE", if mapped_writes { "5" } else { "0" })).unwrap();
    for seed in 1..=3 {
        let file = dir.join(format!("fsx-{seed}"));
        let mut command = Command::new(tool("fsx"));
        command.args(["-q", "-N", &operations.to_string(), "-S", &seed.to_string(), "-f"]);
        command.args([&config, &file]).arg("-P").arg(world.dir());
        let outcome = run_within(PATIENCE, &mut command);
        assert!(outcome.status.success(), "seed {seed}:\n{}{}", outcome.stdout, outcome.stderr);
        fs::remove_file(file).unwrap();
    }
    world.ctl(&["check"]);
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
    fsx(&world, &world.mounted("alice"), true);
}

#[test]
fn fsx_reads_what_it_wrote_with_a_quota() {
    let world = world();
    world.tenant_with("alice", &["--quota-bytes", "1GiB"]);
    fsx(&world, &world.mount("alice"), true);
}

#[test]
fn fsx_reads_what_it_wrote_through_a_share() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("set")).unwrap();
    world.ctl(&["share", "grant", "alice:/set", "bob:/set", "--rw"]);
    fsx(&world, &bob.join("set"), true);
}

//! Promise: benchmarks that check what they do find everything as they left it. `tests/run` installs them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{full, run_within};

use crate::help::everywhere;

/// Longest time one benchmark may take.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Ways of input and output: engine of `fio`, and whether past the page cache.
const WAYS: [(&str, bool); 5] =
    [("psync", false), ("psync", true), ("libaio", true), ("io_uring", false), ("io_uring", true)];
/// What each of the four jobs of `fio` writes, every day and in full: MiB.
const FIO_MIB: (u64, u64) = (8, 512);
/// Jobs of `fio`.
const FIO_JOBS: u64 = 4;
/// How long `dbench` runs, every day and in full: seconds.
const DBENCH_SECONDS: (u32, u32) = (3, 60);
/// What `dbench` plays. Its package brings it.
const DBENCH_LOAD: &str = "/usr/share/dbench/client.txt";
/// Size of the file of `bonnie++` in MiB, and how many times 1024 files it makes, every day and in full.
const BONNIE: ((u32, u32), (u32, u32)) = ((32, 1), (2_048, 32));

fn size<T>((daily, large): (T, T)) -> T {
    if full() { large } else { daily }
}

/// Each block is written with a checksum of its contents at a random place, mixed with reads of such; all are read and
/// verified in the end.
fn fio(dir: &Path, engine: &str, direct: bool) {
    let mut command = Command::new("fio");
    command.args(["--name=blocks", "--rw=randrw", "--rwmixread=20", "--bsrange=4k-64k", "--blockalign=4k"]);
    command.args(["--group_reporting", "--unlink=1", "--output-format=json"]);
    command.args(["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"]);
    command.arg(format!("--iodepth={}", if engine == "psync" { 1 } else { 8 }));
    command.arg(format!("--ioengine={engine}")).arg(format!("--direct={}", u8::from(direct)));
    command.arg(format!("--size={}m", size(FIO_MIB))).arg(format!("--numjobs={FIO_JOBS}"));
    let outcome = run_within(PATIENCE, command.arg("--directory").arg(dir).current_dir(dir));
    assert!(outcome.status.success(), "{outcome}");
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome}"));
    let job = &report["jobs"][0];
    assert_eq!(job["error"], 0, "{outcome}");
    let (written, read) =
        (job["write"]["io_bytes"].as_u64().unwrap(), job["read"]["io_bytes"].as_u64().unwrap());
    // What was written has been read again, beside what was read in between.
    assert!(written > 0 && read >= written, "{written} bytes were written and {read} read: {outcome}");
    assert!(fs::read_dir(dir).unwrap().next().is_none(), "fio has left files");
}

#[test]
fn fio_verifies_what_it_wrote_in_every_way() {
    everywhere(|dir| {
        for (engine, direct) in WAYS {
            fio(dir, engine, direct);
        }
    });
}

#[test]
fn dbench_plays_its_load_to_the_end() {
    assert!(Path::new(DBENCH_LOAD).exists(), "{DBENCH_LOAD} is missing: `tests/run` installs it");
    everywhere(|dir| {
        let mut command = Command::new("dbench");
        command.args(["-c", DBENCH_LOAD, "-t", &size(DBENCH_SECONDS).to_string(), "-D"]).arg(dir).arg("4");
        let outcome = run_within(PATIENCE, &mut command);
        assert!(outcome.status.success(), "{outcome}");
        let verdict = outcome.stdout.lines().find(|line| line.starts_with("Throughput "));
        let verdict = verdict.unwrap_or_else(|| panic!("no verdict: {outcome}"));
        // It goes on over errors and only says so.
        let complaint = ["failed", "ERROR", "error"].iter().find(|word| outcome.to_string().contains(**word));
        assert_eq!(complaint, None, "{outcome}");
        eprintln!("dbench: {verdict}");
    });
}

#[test]
fn bonnie_runs_to_the_end() {
    let (mib, files) = size(BONNIE);
    everywhere(|dir| {
        let mut command = Command::new("bonnie++");
        command.args(["-q", "-f", "-u", "root", "-m", "test", "-r", &(mib / 2).to_string()]);
        command.args(["-s", &mib.to_string(), "-n", &files.to_string(), "-d"]).arg(dir);
        let outcome = run_within(PATIENCE, &mut command);
        assert!(outcome.status.success(), "{outcome}");
        // One line of figures, behind the format's version, the program's, and the name given above.
        let figures: Vec<&str> = outcome.stdout.trim().split(',').collect();
        assert_eq!((figures.get(2), outcome.stdout.lines().count()), (Some(&"test"), 1), "{outcome}");
        assert!(!outcome.stderr.to_lowercase().contains("error"), "{outcome}");
        assert!(fs::read_dir(dir).unwrap().next().is_none(), "bonnie++ has left files: {outcome}");
    });
}

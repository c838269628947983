//! Histories: random sequences of file system calls that are made in lockstep on a tree under test and on a local
//! directory, and must be answered alike.
//!
//! Compared are, after every call, its result or error and what it left of the inodes it named: kind, mode, owner,
//! links, size, and which times moved. In the end the whole trees are compared, with all files
//! still open and after they were closed. What differs is shrunk to the shortest history that still differs.

mod act;
mod attributes;
mod bytes;
mod calls;
mod holes;
mod look;
mod random;
mod step;
mod tree;
mod user;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use rustix::time::{ClockId, clock_gettime};

use crate::wait::wait_until;
use act::Side;
use step::Step;

/// Longest time between two ticks of a clock, generously.
const TICK_MAX: Duration = Duration::from_secs(5);
/// Most histories tried to shorten one that failed.
const SHRINK_MAX: u32 = 3_000;
/// Longest time spent on that.
const SHRINK_TIME_MAX: Duration = Duration::from_secs(120);

/// How many histories of what kind.
#[derive(Clone, Copy, Debug)]
pub struct Histories {
    /// The same seed makes the same histories.
    pub seed: u64,
    /// How many.
    pub count: u32,
    /// Most steps in one.
    pub steps: usize,
    /// With named pipes. What is written to one is seen by the processes of one mount only.
    pub pipes: bool,
    /// All ways to the tree are by one mount, so owners change and ranges are copied within the kernel: who may change
    /// attributes, and how much there is to copy, it judges by what it has seen last.
    pub alone: bool,
    /// The clock that stamps files ticks between two steps, so that it is seen whether a time has moved. Without it only that none
    /// goes back.
    pub patient: bool,
    /// Holes are found where the local file system finds them. Without it a hole may also be found to be data, and nothing
    /// to be a hole that is not all zeroes.
    pub holes: bool,
}

/// Two directories that must behave alike.
#[derive(Debug)]
pub struct Trees {
    local: PathBuf,
    tried: Vec<PathBuf>,
    next: AtomicU32,
}

impl Trees {
    /// `local` is the reference. `tried` are one or several ways to one directory under test: each step takes one.
    pub fn new(local: PathBuf, tried: Vec<PathBuf>) -> Self {
        Self { local, tried, next: AtomicU32::new(0) }
    }

    /// Runs histories, each in new directories, and fails the test with the shortest that is not answered alike.
    /// `after` is run at the end of each, when nothing is open, and panics if it finds something wrong.
    #[track_caller]
    pub fn try_histories(&self, kind: Histories, after: impl Fn()) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&kind.seed.to_le_bytes());
        let config = Config {
            cases: kind.count,
            max_shrink_iters: SHRINK_MAX,
            max_shrink_time: SHRINK_TIME_MAX.as_millis() as u32,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let strategy = proptest::collection::vec(random::step(kind), 1..=kind.steps);
        let outcome =
            runner.run(&strategy, |steps| self.try_one(&steps, kind, &after).map_err(TestCaseError::fail));
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(why, steps)) => {
                let steps: Vec<String> =
                    steps.iter().enumerate().map(|(number, step)| format!("{number:4} {step:?}")).collect();
                panic!("seed {}: {why}\n{}", kind.seed, steps.join("\n"));
            }
            Err(TestError::Abort(why)) => panic!("seed {}: {why}", kind.seed),
        }
    }
}

impl Trees {
    /// Runs one history in new directories.
    fn try_one(&self, steps: &[Step], kind: Histories, after: impl Fn()) -> Result<(), String> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let local = self.local.join(&name);
        let tried: Vec<PathBuf> = self.tried.iter().map(|root| root.join(&name)).collect();
        for dir in [&local, &tried[0]] {
            fs::create_dir(dir).expect("make the directory of a history");
            fs::set_permissions(dir, Permissions::from_mode(0o777)).expect("open it to all");
        }
        let result = in_lockstep(steps, kind, &local, &tried);
        if result.is_ok() {
            after();
        }
        for dir in [&local, &tried[0]] {
            fs::remove_dir_all(dir).map_err(|error| format!("remove all that is left: {error}"))?;
        }
        result
    }
}

/// Makes all calls on both sides, and compares.
fn in_lockstep(steps: &[Step], kind: Histories, local: &Path, tried: &[PathBuf]) -> Result<(), String> {
    let mut local = Side::new(vec![local.to_owned(); tried.len()], kind);
    let mut tried = Side::new(tried.to_vec(), kind);
    for (number, step) in steps.iter().enumerate() {
        if kind.patient {
            await_tick();
        }
        let (expected, seen) = (local.take(number, step), tried.take(number, step));
        if expected != seen {
            return Err(format!("step {number} {step:?}\n  local {expected:?}\n  tried {seen:?}"));
        }
    }
    let (expected, seen) = (local.look_at_open(), tried.look_at_open());
    if expected != seen {
        return Err(format!("what is open in the end\n  local {expected:?}\n  tried {seen:?}"));
    }
    compare_trees("in the end", &mut local, &mut tried)?;
    local.close();
    tried.close();
    compare_trees("when all is closed", &mut local, &mut tried)
}

fn compare_trees(when: &str, local: &mut Side, tried: &mut Side) -> Result<(), String> {
    for (way, (local, tried)) in local.trees()?.iter().zip(&tried.trees()?).enumerate() {
        if let Some(difference) = tree::difference(local, tried) {
            return Err(format!("{when}, on way {way}: {difference}"));
        }
    }
    Ok(())
}

/// Waits for the next tick of the clock that stamps files.
fn await_tick() {
    let time = |clock| Duration::try_from(clock_gettime(clock)).expect("it is later than 1970");
    // What was stamped so far was so before this moment.
    let before = time(ClockId::Realtime);
    wait_until("the clock ticks", TICK_MAX, || time(ClockId::RealtimeCoarse) > before);
}

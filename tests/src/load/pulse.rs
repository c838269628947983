//! How long a mount keeps its users waiting.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Loads;
use crate::wait::wait_until;

/// How long a mount may be silent before the test fails.
const BEAT_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Beats {
    count: u64,
    /// The longest operation since this was last set back.
    longest: Duration,
}

/// A load that makes and removes a directory again and again, and takes the time of each operation. Nothing is taken
/// off: what is told is how long an application was kept in one system call.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Beats>>);

impl Pulse {
    /// Starts to make and remove `path`.
    pub fn start(loads: &mut Loads, path: PathBuf) -> Self {
        let pulse = Self(Arc::default());
        let beats = pulse.clone();
        loads.start("pulse", move |stop| {
            while !stop.is_set() {
                for operation in [fs::create_dir, fs::remove_dir] {
                    let began = Instant::now();
                    operation(&path).expect("make and remove a directory");
                    let took = began.elapsed();
                    beats.with(|beats| beats.longest = beats.longest.max(took));
                }
                beats.with(|beats| beats.count += 1);
            }
            beats.with(|beats| beats.count)
        });
        pulse
    }

    /// Waits until this many beats more have come. Fails the test when a load has failed.
    #[track_caller]
    pub fn wait(&self, loads: &Loads, beats: u64) {
        let until = self.with(|b| b.count) + beats;
        wait_until("the pulse goes on", BEAT_DEADLINE, || {
            loads.assert_running();
            self.with(|b| b.count) >= until
        });
    }

    /// Does something, and answers how long the longest operation took, of those that were under way when it began and
    /// those until the pulse is steady again. When `what` returns nobody may answer any more who is to be replaced.
    #[track_caller]
    pub fn pause_by(&self, loads: &Loads, what: impl FnOnce()) -> Duration {
        self.with(|beats| beats.longest = Duration::ZERO);
        what();
        // An answer from before may still be on its way.
        self.wait(loads, 3);
        self.with(|beats| beats.longest)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Beats) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The pauses of a test.
#[derive(Debug, Default)]
pub struct Pauses {
    caused: Vec<Duration>,
    /// What the same loads cost in moments of which nothing was made.
    usual: Vec<Duration>,
}

impl Pauses {
    /// Adds one, and what was usual just before.
    pub fn push(&mut self, caused: Duration, usual: Duration) {
        for (all, one) in [(&mut self.caused, caused), (&mut self.usual, usual)] {
            all.push(one);
            all.sort_unstable();
        }
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.caused.last().copied().unwrap_or_default()
    }

    /// Prints a row of the table of crashes; `tests/crash` looks for these lines. There is one only if nothing was lost and
    /// no operation of `operations` has failed.
    pub fn print_row(&self, killed: &str, load: &str, operations: u64) {
        let [p50, p99] = [50, 99].map(|percent| percentile(&self.caused, percent));
        let (kills, longest, usual) = (self.caused.len(), self.longest(), percentile(&self.usual, 99));
        println!(
            "crash figures| {killed} | {load} | {kills} | {operations} | 0 | {p50:.1?} | {p99:.1?} | {longest:.1?} | {usual:.1?} |"
        );
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [50, 99].map(|percent| percentile(&self.caused, percent));
        let (kills, longest, usual) = (self.caused.len(), self.longest(), percentile(&self.usual, 99));
        write!(
            f,
            "{kills} pauses: p50 {p50:.1?}, p99 {p99:.1?}, longest {longest:.1?}; usual p99 {usual:.1?}"
        )
    }
}

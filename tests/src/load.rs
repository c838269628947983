//! Loads: work that goes on in threads and programs of its own while a test kills things, and that fails at the first
//! error or wrong byte it meets.
//!
//! A load never forgives an error: it is the application that must not notice anything.

mod bytes;
mod listing;
mod programs;
mod pulse;
mod tree;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

pub use bytes::{sequential_files, unlinked_file};
pub use listing::{changes_beside, fill, listings};
pub use programs::{databases, held_locks, mapped_file};
pub use pulse::{Pauses, Pulse};
pub use tree::tree_changes;

/// Whether the large sizes are wanted.
pub fn full() -> bool {
    env::var_os("VMDS_TEST_FULL").is_some()
}

/// Tells the loads of a test when to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether it is time.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The loads of a test. Dropping it ends them without waiting for them: a test that fails may have no mount left that
/// would let them end.
#[derive(Debug, Default)]
pub struct Loads {
    stop: Stop,
    running: Vec<(String, JoinHandle<u64>)>,
}

impl Loads {
    /// Starts a load. It works until it is told to stop, looks whether all is as it should be, and answers how much
    /// it has done.
    pub fn start(&mut self, name: &str, work: impl FnOnce(&Stop) -> u64 + Send + 'static) {
        let stop = self.stop.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&stop));
        self.running.push((name.to_owned(), thread.expect("start a thread")));
    }

    /// Fails the test if a load has ended, which it does early only by failing.
    #[track_caller]
    pub fn assert_running(&self) {
        for (name, thread) in &self.running {
            assert!(!thread.is_finished(), "the load '{name}' has failed, see above");
        }
    }

    /// Ends all loads; each must have done something, and found it all as it should be. Answers how much they have done.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.stop.set();
        let mut all = 0;
        for (name, thread) in self.running.drain(..) {
            let done = thread.join().unwrap_or_else(|_| panic!("the load '{name}' has failed, see above"));
            assert!(done > 0, "the load '{name}' has done nothing");
            eprintln!("load '{name}': {done} done");
            all += done;
        }
        all
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        self.stop.set();
    }
}

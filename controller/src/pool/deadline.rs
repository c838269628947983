//! A deadline for calls into a file system that may not answer: a DFS whose servers are gone holds a thread for as long
//! as it likes. Such a call is made on a thread of its own, which is written off when it is late.
//!
//! Local file systems are not called this way: they answer, and a thread would cost more than the call.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long a call may take while others hang: what still answers does so soon, and what does not shall not make a whole
/// queue of sessions wait for it one after the other.
const HURRY: Duration = Duration::from_secs(1);
/// Calls of one pool that may hang at the same time; beyond that every call fails at once.
pub(super) const HUNG_MAX: usize = 16;

/// `f_type` of file systems on this machine's own disks or memory: ext2 to ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS,
/// ZFS, bcachefs, ramfs. Anything else may depend on another machine.
const LOCAL: [u32; 9] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x794c_7630,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0x8584_58f6,
];

const RUNNING: u8 = 0;
const FINISHED: u8 = 1;
const WRITTEN_OFF: u8 = 2;

/// Calls with a deadline. See the module.
pub(crate) struct Deadline {
    patience: Duration,
    hung: Arc<AtomicUsize>,
}

impl Deadline {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, hung: Arc::default() }
    }

    /// Makes a call; one that is late is an error, and goes on without anybody waiting for it.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let hanging = self.hung.load(Ordering::Acquire);
        if hanging >= HUNG_MAX {
            return Err(late(format!("the pool does not answer: {HUNG_MAX} calls hang")));
        }
        let patience = if hanging > 0 { self.patience.min(HURRY) } else { self.patience };
        let (state, hung) = (Arc::new(AtomicU8::new(RUNNING)), self.hung.clone());
        let (answer, answered) = mpsc::sync_channel(1);
        let at_work = state.clone();
        thread::Builder::new().name("pool".into()).spawn(move || {
            // Whoever waited may have given up.
            let _ = answer.send(work());
            if at_work.swap(FINISHED, Ordering::AcqRel) == WRITTEN_OFF {
                hung.fetch_sub(1, Ordering::AcqRel);
            }
        })?;
        match answered.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("a call of the pool panicked")),
            Err(RecvTimeoutError::Timeout) => {
                self.hung.fetch_add(1, Ordering::AcqRel);
                if state.swap(WRITTEN_OFF, Ordering::AcqRel) == FINISHED {
                    self.hung.fetch_sub(1, Ordering::AcqRel);
                }
                Err(late(format!("the pool did not answer within {patience:?}")))
            }
        }
    }
}

fn late(sentence: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, sentence)
}

/// Whether a file system depends on nothing but this machine.
pub(super) fn is_local(directory: impl AsFd) -> io::Result<bool> {
    let kind = rustix::fs::fstatfs(directory)?.f_type;
    Ok(LOCAL.contains(&(kind as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_is_given_up_and_too_many_fail_at_once() {
        let deadline = Deadline::new(Duration::from_millis(1));
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(parking_lot::Mutex::new(held));
        for _ in 0..HUNG_MAX {
            let held = held.clone();
            let error = deadline.call(move || Ok(held.lock().recv().is_err())).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        let error = deadline.call(|| Ok(())).unwrap_err();
        assert!(error.to_string().contains("16 calls hang"), "{error}");
        drop(release);
        while deadline.hung.load(Ordering::Acquire) > 0 {
            thread::yield_now();
        }
        let patient = Deadline { patience: Duration::from_secs(60), ..deadline };
        assert_eq!(patient.call(|| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn this_machine_s_memory_is_local_and_proc_is_not_known_to_be() {
        assert!(!is_local(std::fs::File::open("/proc").unwrap()).unwrap());
    }
}

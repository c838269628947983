//! An answer that is owed to somebody, and given once: by the job that finds it out, or by the keeper of deadlines when
//! the job is late.

use std::time::Instant;

use parking_lot::Mutex;

/// See the module. `D` is what gives the answer.
pub(crate) struct Owed<D> {
    done: Mutex<Option<D>>,
    too_late: Box<dyn Fn(D) + Send + Sync>,
    since: Instant,
}

impl<D> Owed<D> {
    pub(super) fn new(done: D, too_late: impl Fn(D) + Send + Sync + 'static) -> Self {
        Self { done: Mutex::new(Some(done)), too_late: Box::new(too_late), since: Instant::now() }
    }

    /// What gives the answer, unless it has been given.
    pub(crate) fn take(&self) -> Option<D> {
        self.done.lock().take()
    }
}

/// What the pool and its keeper see of an answer.
pub(super) trait Due: Send + Sync {
    /// Since when it is waited for.
    fn since(&self) -> Instant;
    /// Whether anybody still waits. If not, a job that was not begun must not be.
    fn is_open(&self) -> bool;
    /// Says that it is too late, if nothing else has been said.
    fn expire(&self);
}

impl<D: Send> Due for Owed<D> {
    fn since(&self) -> Instant {
        self.since
    }

    fn is_open(&self) -> bool {
        self.done.lock().is_some()
    }

    fn expire(&self) {
        if let Some(done) = self.take() {
            (self.too_late)(done);
        }
    }
}

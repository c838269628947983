//! An answer that is owed to somebody, and given once: by the job that finds it out, or by the keeper of deadlines when
//! the job is late.

use std::time::Instant;

use parking_lot::Mutex;

struct State<D> {
    done: Option<D>,
    /// The job is being carried out, or has been.
    started: bool,
}

/// See the module. `D` is what gives the answer.
pub(crate) struct Owed<D> {
    state: Mutex<State<D>>,
    too_late: Box<dyn Fn(D, Progress) + Send + Sync>,
    since: Instant,
}

/// How far a job is that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It was not begun and never will be.
    Never,
    /// It is under way. When it has ended it finds nobody to answer.
    UnderWay,
}

impl<D> Owed<D> {
    pub(super) fn new(done: D, too_late: impl Fn(D, Progress) + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { done: Some(done), started: false });
        Self { state, too_late: Box::new(too_late), since: Instant::now() }
    }

    /// What gives the answer, unless it has been given.
    pub(crate) fn take(&self) -> Option<D> {
        self.state.lock().done.take()
    }
}

/// What the pool and its keeper see of an answer.
pub(super) trait Due: Send + Sync {
    /// Since when it is waited for.
    fn since(&self) -> Instant;
    /// Whether anybody still waits.
    fn is_open(&self) -> bool;
    /// The job begins. `false` if nobody waits any more: then it must not.
    fn start(&self) -> bool;
    /// Says that it is too late, if nothing else has been said.
    fn expire(&self);
}

impl<D: Send> Due for Owed<D> {
    fn since(&self) -> Instant {
        self.since
    }

    fn is_open(&self) -> bool {
        self.state.lock().done.is_some()
    }

    fn start(&self) -> bool {
        let mut state = self.state.lock();
        state.started = state.done.is_some();
        state.started
    }

    fn expire(&self) {
        // Said under the lock: a job that ends just now finds either the answer to give, or everything said and done.
        let mut state = self.state.lock();
        if let Some(done) = state.done.take() {
            let progress = if state.started { Progress::UnderWay } else { Progress::Never };
            (self.too_late)(done, progress);
        }
    }
}

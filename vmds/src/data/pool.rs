//! A few threads for what may wait for storage, so that a hung file system cannot stop metadata.
//!
//! Nobody waits for them without a deadline: a *keeper* answers what is late. The job stays with its thread, which may
//! sit in the kernel for as long as the file system likes and owns everything it works on; a job that was not begun when
//! its answer was given never is. The keeper sleeps until the oldest answer is due and is not woken for each job.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::{error, warn};

mod owed;

use owed::Due;
pub(crate) use owed::Owed;

use crate::link::on_continuation_thread;

/// Most threads that wait for storage at the same time.
const THREADS_MAX: usize = 4;
/// Most requests waiting for a thread.
const REQUESTS_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// This thread is one of a pool.
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

/// A job, and the answer that waits for it, if one does.
struct Task {
    job: Job,
    due: Option<Arc<dyn Due>>,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// Tasks with an answer that waits for them, begun or not.
    requests: usize,
    /// What each thread is at.
    at_work: Vec<Option<Arc<dyn Due>>>,
    idle: usize,
    /// All threads are at work, all places taken, and nothing has moved for too long.
    stalled: bool,
    keeper: Keeper,
    closed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Keeper {
    /// There is none yet.
    #[default]
    None,
    /// It sleeps until it is told that something is due.
    Asleep,
    /// It will look when the oldest answer is due.
    Watching,
}

struct Shared {
    patience: Duration,
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
    watch: Condvar,
}

/// The pool. Its threads start when they are first needed and end with it.
pub(crate) struct IoPool {
    shared: Arc<Shared>,
}

impl IoPool {
    /// A pool without threads, whose jobs may take as long as `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        let shared = Shared {
            patience,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            watch: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has `job` done soon, which takes `done` to answer. If it is late, or cannot be done, `too_late` answers.
    ///
    /// When too many wait for their turn, this waits a moment for room; but never on a thread of a pool or the one that
    /// runs continuations: what they bring is the next step of a request that has had its place.
    pub(crate) fn submit<D: Send + 'static>(
        &self,
        done: D,
        too_late: impl Fn(D) + Send + Sync + 'static,
        job: impl FnOnce(&Owed<D>) + Send + 'static,
    ) {
        let owed = Arc::new(Owed::new(done, too_late));
        let mut state = self.shared.state.lock();
        let next_step = WORKS.get() || on_continuation_thread();
        let has_room = next_step || self.shared.wait_for_room(&mut state);
        if !(has_room && self.shared.have_threads(&mut state)) {
            drop(state);
            return owed.expire();
        }
        let due: Arc<dyn Due> = owed.clone();
        state.requests += 1;
        state.tasks.push_back(Task { job: Box::new(move || job(&owed)), due: Some(due) });
        self.shared.watch_over(&mut state);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Has something done for which nobody waits: descriptors closed, of which there are only so many.
    pub(crate) fn tidy(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        if !self.shared.have_threads(&mut state) {
            drop(state);
            return job();
        }
        state.tasks.push_back(Task { job: Box::new(job), due: None });
        drop(state);
        self.shared.work.notify_one();
    }
}

impl Drop for IoPool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
        self.shared.watch.notify_all();
    }
}

impl Shared {
    /// Waits until one more request can wait for a thread. If none has its turn for the time in which one must have it
    /// for the last to be in time, another one would only wait in vain: `false`, and at once until something moves.
    fn wait_for_room(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let turn = self.patience * THREADS_MAX as u32 / REQUESTS_MAX as u32;
        let full = |state: &mut State| state.requests >= REQUESTS_MAX && !state.stalled;
        if self.room.wait_while_for(state, full, turn).timed_out() {
            state.stalled = true;
            warn!("storage does not keep up; requests are refused");
        }
        state.requests < REQUESTS_MAX
    }

    /// Starts a thread if another one is of use. Answers whether there is any.
    fn have_threads(self: &Arc<Self>, state: &mut State) -> bool {
        let number = state.at_work.len();
        if state.tasks.len() < state.idle || number >= THREADS_MAX {
            return true;
        }
        let shared = Arc::clone(self);
        let started =
            std::thread::Builder::new().name(format!("vmds-io-{number}")).spawn(move || shared.serve(number));
        match started {
            Ok(_) => state.at_work.push(None),
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "a thread for storage cannot be started");
            }
        }
        !state.at_work.is_empty()
    }

    /// Sees to it that the keeper looks in time.
    fn watch_over(self: &Arc<Self>, state: &mut State) {
        match state.keeper {
            Keeper::Watching => return,
            Keeper::Asleep => drop(self.watch.notify_one()),
            Keeper::None => {
                let shared = Arc::clone(self);
                let started =
                    std::thread::Builder::new().name("vmds-deadlines".into()).spawn(move || shared.keep());
                if let Err(error) = started {
                    // Tried again with the next request.
                    error!(error = &error as &dyn std::error::Error, "nobody looks at deadlines");
                    return;
                }
            }
        }
        state.keeper = Keeper::Watching;
    }

    fn serve(&self, number: usize) {
        WORKS.set(true);
        let mut state = self.state.lock();
        loop {
            if let Some(Task { job, due }) = state.tasks.pop_front() {
                state.at_work[number].clone_from(&due);
                drop(state);
                // What is not begun is dropped here as well: closing what it holds may wait for storage.
                if due.as_ref().is_none_or(|due| due.is_open()) {
                    job();
                } else {
                    drop(job);
                }
                state = self.state.lock();
                state.at_work[number] = None;
                if due.is_some() {
                    state.requests -= 1;
                    state.stalled = false;
                    self.room.notify_one();
                }
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                self.work.wait(&mut state);
                state.idle -= 1;
            }
        }
    }

    fn keep(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let (late, next) = state.late(Instant::now(), self.patience);
            if !late.is_empty() {
                drop(state);
                warn!(requests = late.len(), "storage does not answer; giving requests up");
                late.iter().for_each(|due| due.expire());
                state = self.state.lock();
                continue;
            }
            match next {
                Some(deadline) => drop(self.watch.wait_until(&mut state, deadline)),
                None => {
                    state.keeper = Keeper::Asleep;
                    self.watch.wait(&mut state);
                }
            }
        }
    }
}

impl State {
    /// The answers that are late, and when the next one will be.
    fn late(&self, now: Instant, patience: Duration) -> (Vec<Arc<dyn Due>>, Option<Instant>) {
        let waiting = self.tasks.iter().filter_map(|task| task.due.as_ref());
        let open = self.at_work.iter().flatten().chain(waiting).filter(|due| due.is_open());
        let (late, in_time): (Vec<_>, Vec<_>) = open.partition(|due| due.since() + patience <= now);
        let next = in_time.iter().map(|due| due.since() + patience).min();
        (late.into_iter().cloned().collect(), next)
    }
}

#[cfg(test)]
mod tests;

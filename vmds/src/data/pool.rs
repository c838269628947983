//! A few threads for what may wait for storage, so that a hung file system cannot stop metadata.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::link::on_continuation_thread;

/// Most threads that wait for storage at the same time.
const THREADS_MAX: usize = 4;
/// Most jobs waiting for a thread; with more, whoever brings one does it itself.
const JOBS_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

/// The pool. Its threads start when they are first needed and end with it.
pub(crate) struct IoPool {
    shared: Arc<Shared>,
}

impl IoPool {
    /// A pool without threads.
    pub(crate) fn new() -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), work: Condvar::new() }) }
    }

    /// Has `job` done soon. When too many wait, it is done here and now; but never on the thread that runs
    /// continuations, whose jobs are bounded by the calls in flight.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        if state.jobs.len() >= JOBS_MAX && !on_continuation_thread() {
            drop(state);
            return job();
        }
        if state.jobs.len() >= state.idle && state.threads < THREADS_MAX {
            let shared = Arc::clone(&self.shared);
            let name = format!("vmds-io-{}", state.threads);
            match std::thread::Builder::new().name(name).spawn(move || shared.serve()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "no thread for storage can be started"
                    );
                    drop(state);
                    return job();
                }
                Err(_) => {}
            }
        }
        state.jobs.push_back(Box::new(job));
        drop(state);
        self.shared.work.notify_one();
    }
}

impl Drop for IoPool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                self.work.wait(&mut state);
                state.idle -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_full_pool_makes_its_callers_work() {
        let pool = IoPool::new();
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock();
        let (started, starts) = mpsc::channel();
        let (done, finished) = mpsc::channel();
        let submit = |started: mpsc::Sender<()>| {
            let (gate, done) = (Arc::clone(&gate), done.clone());
            pool.submit(move || {
                // Nobody listens any more once all threads are known to be taken.
                let _ = started.send(());
                drop(gate.lock());
                done.send(std::thread::current().id()).unwrap();
            });
        };
        for _ in 0..THREADS_MAX {
            submit(started.clone());
            starts.recv().unwrap();
        }
        for _ in 0..JOBS_MAX {
            submit(started.clone());
        }
        let here = std::thread::current().id();
        let (ran, ran_on) = mpsc::channel();
        pool.submit(move || ran.send(std::thread::current().id()).unwrap());
        assert_eq!(ran_on.try_recv().unwrap(), here);
        drop(closed);
        for _ in 0..THREADS_MAX + JOBS_MAX {
            assert_ne!(finished.recv().unwrap(), here);
        }
        assert_eq!(pool.shared.state.lock().threads, THREADS_MAX);
    }
}

//! Threads for what takes as long as a network: sessions and the sweeper go on meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};

/// Things done at the same time; more wait for their turn. Apart from the threads that move the bytes, so that those who
/// wait for bytes never take the place of those who bring them.
const THREADS_MAX: usize = 64;
/// Of one kind of work, this much is done at the same time for a session; more waits for its turn, so that no tenant
/// takes all threads.
const LANE_MAX: usize = 4;
/// How long a VMDS waits for what its predecessor has asked for.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(30);

/// The threads; started when first needed.
#[derive(Default)]
pub(super) struct Workers(OnceLock<Option<Runtime>>);

impl Workers {
    /// Where to have things done; `None`: the system gives no threads.
    pub(super) fn handle(&self) -> Option<&Handle> {
        let start = || {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(THREADS_MAX)
                .thread_name("elsewhere")
                .enable_time()
                .build();
            runtime
                .inspect_err(|error| tracing::error!(error = error as &dyn std::error::Error, "no threads"))
                .ok()
        };
        self.0.get_or_init(start).as_ref().map(Runtime::handle)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Whoever drops it may be one of the threads, and need not wait for the others.
        if let Some(Some(runtime)) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// How many requests of a session are being carried out elsewhere.
#[derive(Default)]
pub(super) struct Elsewhere {
    running: Mutex<usize>,
    fewer: Condvar,
}

impl Elsewhere {
    /// Waits until there are none, but not for ever.
    pub(super) fn wait(&self) {
        let mut running = self.running.lock();
        let deadline = Instant::now() + PREDECESSOR_WAIT;
        while *running > 0 {
            if self.fewer.wait_until(&mut running, deadline).timed_out() {
                tracing::warn!(requests = *running, "requests of a VMDS that is gone go on");
                return;
            }
        }
    }

    /// One more.
    pub(super) fn begin(&self) {
        *self.running.lock() += 1;
    }

    /// One less.
    pub(super) fn end(&self) {
        *self.running.lock() -= 1;
        self.fewer.notify_all();
    }
}

/// A piece of work.
type Work = Box<dyn FnOnce() + Send>;

/// Work of one kind for one session, of which a part is done at a time and the rest waits. What waits belongs to requests
/// without a reply, of which there is a bounded number.
#[derive(Clone, Default)]
pub(super) struct Lane(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Work>,
}

impl Lane {
    /// Has `work` done on one of the threads, when it is its turn.
    pub(super) fn line_up(&self, workers: &Handle, work: Work) {
        let mut line = self.0.lock();
        line.waiting.push_back(work);
        if line.running < LANE_MAX {
            line.running += 1;
            let lane = self.clone();
            workers.spawn_blocking(move || while lane.do_next() {});
        }
    }

    /// Does what has waited longest; `false`: there was nothing, and this thread is no longer one of the lane's.
    fn do_next(&self) -> bool {
        let next = {
            let mut line = self.0.lock();
            let next = line.waiting.pop_front();
            line.running -= usize::from(next.is_none());
            next
        };
        next.map(|work| work()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_lane_does_all_and_never_more_than_its_share_at_a_time() {
        const WORKS: usize = 3 * LANE_MAX;
        let (workers, lane) = (Workers::default(), Lane::default());
        let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begun, seen) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..WORKS {
            let (at_work, most, begun, gate) = (at_work.clone(), most.clone(), begun.clone(), gate.clone());
            let work = move || {
                most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                begun.send(()).unwrap();
                gate.lock().recv().unwrap();
                at_work.fetch_sub(1, Ordering::SeqCst);
            };
            lane.line_up(workers.handle().unwrap(), Box::new(work));
        }
        (0..LANE_MAX).for_each(|_| seen.recv().unwrap());
        (0..WORKS).for_each(|_| go.send(()).unwrap());
        (LANE_MAX..WORKS).for_each(|_| seen.recv().unwrap());
        assert_eq!(most.load(Ordering::SeqCst), LANE_MAX);
    }
}

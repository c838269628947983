//! Threads for what takes as long as a network: sessions and the sweeper go on meanwhile.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Session;

/// Things done at the same time; more wait for their turn. Apart from the threads that move the bytes, so that those who
/// wait for bytes never take the place of those who bring them.
const THREADS_MAX: usize = 64;
/// Things of one session at a time that bring bytes to be read.
pub(super) const FILLS_MAX: usize = 8;
/// Files of one session that are synced at the same time; and as many that are cut.
pub(super) const TURNS_MAX: usize = 4;
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

/// A request of a session that is being carried out elsewhere, or waits for its turn.
pub(super) struct UnderWay(Arc<Session>);

impl UnderWay {
    /// One more.
    pub(super) fn begin(session: &Arc<Session>) -> Self {
        session.elsewhere.begin();
        Self(session.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.elsewhere.end();
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

/// Has `work` done on one of the threads when it is its turn. What waits belongs to requests without a reply, of which there
/// is a bounded number.
pub(super) fn in_turn(workers: &Handle, turns: &Arc<Semaphore>, work: impl FnOnce() + Send + 'static) {
    let turns = turns.clone();
    match turns.clone().try_acquire_owned() {
        Ok(turn) => drop(workers.spawn_blocking(move || with(turn, work))),
        Err(_) => drop(workers.spawn(async move {
            // It is never closed.
            let Ok(turn) = turns.acquire_owned().await else { return };
            tokio::task::spawn_blocking(move || with(turn, work));
        })),
    }
}

fn with(turn: OwnedSemaphorePermit, work: impl FnOnce()) {
    work();
    drop(turn);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn all_is_done_in_turn_and_never_more_than_a_share_at_a_time() {
        const WORKS: usize = 3 * TURNS_MAX;
        let (workers, turns) = (Workers::default(), Arc::new(Semaphore::new(TURNS_MAX)));
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
            in_turn(workers.handle().unwrap(), &turns, work);
        }
        (0..TURNS_MAX).for_each(|_| seen.recv().unwrap());
        (0..WORKS).for_each(|_| go.send(()).unwrap());
        (TURNS_MAX..WORKS).for_each(|_| seen.recv().unwrap());
        assert_eq!(most.load(Ordering::SeqCst), TURNS_MAX);
    }
}

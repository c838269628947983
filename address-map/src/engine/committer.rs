//! Group commit: one sync of an engine serves everybody who waits for durability at that moment.
//!
//! No embedded engine combines the syncs of concurrent callers by itself. Here one thread syncs; whoever asks while
//! it does is served, all together, by the next sync.
//!
//! It never reports success after a failed sync. What a kernel could not write it may have dropped and will not
//! report again, so one failure fails everybody from then on, until the store is opened anew.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use thiserror::Error;

use super::Engine;
use crate::error::{MapError, Refusal, Result};

/// Longest wait for durability.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most callbacks that wait at a time.
const CALLBACKS_MAX: usize = 4096;

/// Why commits are not known to be durable.
#[derive(Clone, Debug, Error)]
pub enum CommitterError {
    /// A sync has failed, this one or an earlier one.
    #[error("a sync has failed; nothing becomes durable until the store is opened anew")]
    Failed(#[source] Arc<MapError>),
    /// The disk is too slow.
    #[error("commits did not become durable within {WAIT_MAX:?}")]
    Deadline,
}

impl From<CommitterError> for MapError {
    fn from(error: CommitterError) -> Self {
        MapError::Engine(Box::new(error))
    }
}

type Callback = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Default)]
struct State {
    /// Syncs begun; the last of them may still run.
    begun: u64,
    /// Syncs that have succeeded.
    done: u64,
    /// The sync that the last caller needs.
    wanted: u64,
    callbacks: Vec<Callback>,
    failure: Option<CommitterError>,
    ending: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody wants a sync, or the committer ends.
    work: Condvar,
    /// A sync has ended.
    synced: Condvar,
}

/// Waits for durability, grouped.
///
/// "Durable" here always means everything committed before the call, by any engine of the same store: commit numbers
/// of different shards cannot be compared, a sync covers them all anyway, and so nobody needs to remember a number.
///
/// The committer has a thread of its own. Dropping it serves those who wait with a last sync and joins the thread.
pub struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// A committer over an engine, or over all engines of a store if [`Engine::sync`] of one covers all of them.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new()
            .name("committer".to_owned())
            .spawn({
                let shared = shared.clone();
                move || run(&shared, &*engine)
            })
            .expect("a thread can be started");
        Self { shared, thread: Some(thread) }
    }

    /// Blocks until everything committed before this call survives a power loss.
    ///
    /// Fails if a sync has failed, now or earlier, or if it takes longer than 30 seconds.
    pub fn wait_durable(&self) -> Result<()> {
        let deadline = Instant::now() + WAIT_MAX;
        let mut state = self.shared.state.lock();
        let needed = self.request(&mut state);
        loop {
            // A failure does not undo the success of the sync that this caller needed.
            if state.done >= needed {
                return Ok(());
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone().into());
            }
            if self.shared.synced.wait_until(&mut state, deadline).timed_out() && state.done < needed {
                return Err(CommitterError::Deadline.into());
            }
        }
    }

    /// Calls back once everything committed before this call survives a power loss, or when that has failed.
    ///
    /// The call comes on the committer's thread, which serves everybody: it must not block. When too many wait
    /// already, the answer is [`Refusal::Busy`], at once and on the caller's own thread.
    pub fn when_durable(&self, callback: impl FnOnce(Result<()>) + Send + 'static) {
        let mut state = self.shared.state.lock();
        let refused: MapError = if let Some(failure) = &state.failure {
            failure.clone().into()
        } else if state.callbacks.len() >= CALLBACKS_MAX {
            Refusal::Busy.into()
        } else {
            self.request(&mut state);
            state.callbacks.push(Box::new(callback));
            return;
        };
        drop(state);
        callback(Err(refused));
    }

    /// Asks for a sync that begins after now, and answers its number.
    fn request(&self, state: &mut State) -> u64 {
        state.wanted = state.begun + 1;
        self.shared.work.notify_one();
        state.wanted
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.state.lock().ending = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A callback may have held the last reference: a thread cannot wait for itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("the committer's thread has panicked");
            }
        }
    }
}

fn run(shared: &Shared, engine: &dyn Engine) {
    loop {
        let mut state = shared.state.lock();
        while state.wanted <= state.begun || state.failure.is_some() {
            if state.ending {
                return;
            }
            shared.work.wait(&mut state);
        }
        state.begun += 1;
        let number = state.begun;
        let callbacks = std::mem::take(&mut state.callbacks);
        drop(state);

        let result = engine.sync().map_err(|error| CommitterError::Failed(Arc::new(error)));

        let mut state = shared.state.lock();
        match &result {
            Ok(()) => state.done = number,
            Err(failure) => state.failure = Some(failure.clone()),
        }
        // Whoever came while a sync failed must not wait for one that never begins.
        let late = if result.is_err() { std::mem::take(&mut state.callbacks) } else { Vec::new() };
        shared.synced.notify_all();
        drop(state);
        for callback in callbacks.into_iter().chain(late) {
            callback(result.clone().map_err(MapError::from));
        }
    }
}

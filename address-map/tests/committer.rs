//! The committer serves all who wait with one sync, waits no shorter than it must, and never lies after a failure.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use address_map::engine::{Batch, Committer, Engine, FjallOptions, FjallStore, MemoryEngine, Reader, Value};
use address_map::error::Refusal;
use address_map::ids::Seq;
use address_map::key::Key;
use address_map::{MapError, Result};
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

/// Bound of every wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// The message of an error and of all its sources.
fn chain(error: &MapError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// An engine whose sync waits until it is let through and can fail.
#[derive(Default)]
struct Gate {
    inner: MemoryEngine,
    permits: Mutex<usize>,
    opened: Condvar,
    begun: AtomicUsize,
    failing: AtomicBool,
}

impl Gate {
    fn open(&self, syncs: usize) {
        *self.permits.lock() += syncs;
        self.opened.notify_all();
    }

    fn wait_begun(&self, syncs: usize) {
        let patience = Instant::now() + PATIENCE;
        while self.begun.load(Ordering::SeqCst) < syncs {
            assert!(Instant::now() < patience, "no sync begins");
            thread::yield_now();
        }
    }
}

impl Reader for Gate {
    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.inner.get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut address_map::engine::Visit<'_>,
    ) -> Result<()> {
        self.inner.scan(start, end, visit)
    }
}

impl Engine for Gate {
    fn commit(&self, batch: &Batch) -> Result<Seq> {
        self.inner.commit(batch)
    }

    fn sync(&self) -> Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let mut permits = self.permits.lock();
        self.opened.wait_while(&mut permits, |permits| *permits == 0);
        *permits -= 1;
        if self.failing.load(Ordering::SeqCst) {
            return Err(MapError::Engine("the disk is gone".into()));
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Reader + Send + '_>> {
        self.inner.snapshot()
    }
}

#[test]
fn one_sync_serves_all_who_wait() {
    const WAITERS: usize = 8;
    let gate = Arc::new(Gate::default());
    let committer = Committer::new(gate.clone());
    let (done, results) = mpsc::channel();
    let wait = |kind: &'static str| {
        let done = done.clone();
        committer.when_durable(move |result| done.send((kind, result.is_ok())).unwrap());
    };
    wait("first");
    gate.wait_begun(1);
    // These come while the first sync runs, which may not cover them.
    (0..WAITERS).for_each(|_| wait("later"));
    gate.open(1);
    assert_eq!(results.recv_timeout(PATIENCE).unwrap(), ("first", true));
    gate.wait_begun(2);
    assert!(results.try_recv().is_err(), "a sync that began before does not count");
    gate.open(1);
    for _ in 0..WAITERS {
        assert_eq!(results.recv_timeout(PATIENCE).unwrap(), ("later", true));
    }
    drop(committer);
    assert_eq!(gate.begun.load(Ordering::SeqCst), 2, "one sync for all of them");
}

#[test]
fn threads_wait_until_their_commits_are_durable() {
    const THREADS: usize = 8;
    let directory = TempDir::new().unwrap();
    let store = FjallStore::open(directory.path(), FjallOptions::default()).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(store.engine("shard-0").unwrap());
    let committer = Committer::new(engine.clone());
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for i in 0..THREADS {
            let (engine, committer, start) = (&engine, &committer, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..20 {
                    let mut batch = Batch::default();
                    batch.put(Key::from_slice(&[i as u8]), *b"v");
                    engine.commit(&batch).unwrap();
                    committer.wait_durable().unwrap();
                }
            });
        }
    });
}

#[test]
fn a_failed_sync_fails_everybody_for_ever() {
    let gate = Arc::new(Gate::default());
    let committer = Committer::new(gate.clone());
    let (done, results) = mpsc::channel();
    let wait = |kind: &'static str| {
        let done = done.clone();
        committer.when_durable(move |result| done.send((kind, result)).unwrap());
    };
    gate.failing.store(true, Ordering::SeqCst);
    wait("first");
    gate.wait_begun(1);
    wait("while it fails");
    gate.open(1);
    for kind in ["first", "while it fails"] {
        let (whose, result) = results.recv_timeout(PATIENCE).unwrap();
        assert_eq!(whose, kind);
        assert!(chain(&result.unwrap_err()).ends_with("the disk is gone"), "the reason is told");
    }
    // The disk is back, but what it lost is lost.
    gate.failing.store(false, Ordering::SeqCst);
    gate.open(10);
    assert!(chain(&committer.wait_durable().unwrap_err()).contains("a sync has failed"));
    wait("afterwards");
    assert!(results.recv_timeout(PATIENCE).unwrap().1.is_err());
    assert_eq!(gate.begun.load(Ordering::SeqCst), 1, "it is not tried again");
}

#[test]
fn too_many_callbacks_are_refused_and_the_others_are_served_at_the_end() {
    let gate = Arc::new(Gate::default());
    let committer = Committer::new(gate.clone());
    let (done, results) = mpsc::channel();
    let wait = || {
        let done = done.clone();
        committer.when_durable(move |result| done.send(result.map_err(|e| e.refusal())).unwrap());
    };
    wait();
    gate.wait_begun(1);
    let mut queued = 0;
    while results.try_recv().is_err() {
        wait();
        queued += 1;
        assert!(queued < 1 << 20, "the queue has no bound");
    }
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    committer.when_durable(move |result| {
        assert_eq!(result.unwrap_err().refusal(), Refusal::Busy);
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(refused.load(Ordering::SeqCst), 1, "refused at once");
    gate.open(2);
    drop(committer);
    // The first one and all that were queued, the refused one of the loop not counted.
    assert_eq!(results.try_iter().filter(Result::is_ok).count(), queued);
}

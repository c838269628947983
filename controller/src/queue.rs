//! The work queue between triggers and reconcilers: names of resources to look at, each at most once.
//!
//! **Guarantees**: a key that is waiting is not added twice; a key that is being worked on is not handed out again
//! before that work is done, and then once more if it was added meanwhile. Failed keys come back after a delay that
//! doubles from [`FIRST_DELAY`] to [`LAST_DELAY`]. Memory is bounded by the number of different keys.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Delay after the first failure.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest delay after a failure.
pub const LAST_DELAY: Duration = Duration::from_secs(30);

/// How the work on a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Well; nothing more to do until something changes.
    Settled,
    /// Well; look again after this time.
    LookAgain(Duration),
    /// Not well; try again after a delay.
    Failed,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
enum Take<K> {
    Now(K),
    At(Instant),
    Nothing,
}

/// The queue without any waiting: all time comes in from outside.
#[derive(Debug)]
struct Core<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    active: HashSet<K>,
    again: HashSet<K>,
    later: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Ord> Core<K> {
    fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            active: HashSet::new(),
            again: HashSet::new(),
            later: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        }
    }

    fn add(&mut self, key: K) {
        self.unschedule(&key);
        if self.active.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn unschedule(&mut self, key: &K) {
        if let Some(at) = self.due.remove(key) {
            self.later.remove(&(at, key.clone()));
        }
    }

    /// Keeps the earlier time if there is one already.
    fn schedule(&mut self, key: K, at: Instant) {
        if self.waiting.contains(&key) || self.due.get(&key).is_some_and(|&known| known <= at) {
            return;
        }
        self.unschedule(&key);
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    fn take(&mut self, now: Instant) -> Take<K> {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.later.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        match self.ready.pop_front() {
            Some(key) => {
                self.waiting.remove(&key);
                self.active.insert(key.clone());
                Take::Now(key)
            }
            None => self.later.first().map_or(Take::Nothing, |(at, _)| Take::At(*at)),
        }
    }

    /// How often the key has failed in a row.
    fn done(&mut self, key: K, how: Done, now: Instant) -> u32 {
        self.active.remove(&key);
        let changed_meanwhile = self.again.remove(&key);
        let failed_before = self.failures.remove(&key).unwrap_or(0);
        let failures = if how == Done::Failed { failed_before.saturating_add(1) } else { 0 };
        if failures > 0 {
            self.failures.insert(key.clone(), failures);
        }
        match how {
            _ if changed_meanwhile => self.add(key),
            Done::Settled => {}
            Done::LookAgain(after) => self.schedule(key, now + after),
            Done::Failed => {
                let delay = FIRST_DELAY.saturating_mul(1 << failed_before.min(16)).min(LAST_DELAY);
                self.schedule(key, now + delay);
            }
        }
        failures
    }
}

/// A queue shared by those who add and those who work.
#[derive(Debug)]
pub struct WorkQueue<K> {
    core: Mutex<Core<K>>,
    added: Notify,
}

impl<K: Clone + Eq + Hash + Ord> Default for WorkQueue<K> {
    fn default() -> Self {
        Self { core: Mutex::new(Core::new()), added: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// Adds a key, now.
    pub fn add(&self, key: K) {
        self.core.lock().add(key);
        self.added.notify_one();
    }

    /// Keys that wait for a worker; those with an appointment at a later time are not among them.
    pub fn len(&self) -> usize {
        self.core.lock().ready.len()
    }

    /// Whether no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for a key to work on. [`WorkQueue::done`] must follow.
    pub async fn take(&self) -> K {
        loop {
            let added = self.added.notified();
            let next = self.core.lock().take(Instant::now());
            match next {
                Take::Now(key) => {
                    // There may be more for the next worker, whose notification this one has taken.
                    self.added.notify_one();
                    return key;
                }
                Take::At(at) => {
                    let _ = tokio::time::timeout_at(at.into(), added).await;
                }
                Take::Nothing => added.await,
            }
        }
    }

    /// The work on a key has ended; answers how often it has failed in a row.
    pub fn done(&self, key: K, how: Done) -> u32 {
        let failures = self.core.lock().done(key, how, Instant::now());
        self.added.notify_one();
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_key_waits_once_and_is_worked_on_once() {
        let (mut core, now) = (Core::new(), Instant::now());
        core.add("a");
        core.add("b");
        core.add("a");
        assert_eq!(core.take(now), Take::Now("a"));
        core.add("a");
        core.add("a");
        assert_eq!(core.take(now), Take::Now("b"));
        assert_eq!(core.take(now), Take::Nothing, "a is being worked on");
        core.done("a", Done::Settled, now);
        assert_eq!(core.take(now), Take::Now("a"), "a was added meanwhile");
        core.done("a", Done::Settled, now);
        assert_eq!(core.take(now), Take::Nothing);
    }

    #[test]
    fn failures_come_back_later_and_later() {
        let (mut core, start) = (Core::new(), Instant::now());
        core.add("a");
        let (mut now, mut delays) = (start, Vec::new());
        for _ in 0..12 {
            assert_eq!(core.take(now), Take::Now("a"));
            core.done("a", Done::Failed, now);
            let Take::At(next) = core.take(now) else { panic!("a must come back") };
            delays.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(delays[..4], [100, 200, 400, 800]);
        assert_eq!(delays[9..], [30_000; 3]);
        assert_eq!(core.take(now), Take::Now("a"));
        core.done("a", Done::Settled, now);
        core.add("a");
        assert_eq!(core.take(now), Take::Now("a"));
        core.done("a", Done::Failed, now);
        assert_eq!(core.take(now), Take::At(now + FIRST_DELAY), "success starts the delays anew");
    }

    #[test]
    fn a_change_does_not_wait_for_a_delay() {
        let (mut core, start) = (Core::new(), Instant::now());
        core.add("a");
        core.take(start);
        core.done("a", Done::LookAgain(Duration::from_millis(500)), start);
        assert_eq!(core.take(at(start, 1)), Take::At(at(start, 500)));
        core.add("a");
        assert_eq!(core.take(at(start, 1)), Take::Now("a"));
        core.done("a", Done::Settled, at(start, 1));
        assert_eq!(core.take(at(start, 600)), Take::Nothing, "the old appointment is off");
    }

    #[test]
    fn the_earlier_appointment_stays_and_nothing_piles_up() {
        let (mut core, start) = (Core::new(), Instant::now());
        core.schedule("a", at(start, 10));
        core.schedule("a", at(start, 500));
        core.schedule("a", at(start, 5));
        assert_eq!(core.take(start), Take::At(at(start, 5)));
        assert_eq!((core.later.len(), core.due.len()), (1, 1));
        assert_eq!(core.take(at(start, 5)), Take::Now("a"));
        assert_eq!((core.later.len(), core.due.len()), (0, 0));
    }

    #[tokio::test]
    async fn workers_share_the_keys() {
        let queue = std::sync::Arc::new(WorkQueue::default());
        let worker = |queue: std::sync::Arc<WorkQueue<u32>>| async move {
            let key = queue.take().await;
            queue.done(key, Done::Settled);
            key
        };
        let workers: Vec<_> = (0..3).map(|_| tokio::spawn(worker(std::sync::Arc::clone(&queue)))).collect();
        for key in 0..3 {
            queue.add(key);
        }
        let mut keys = Vec::new();
        for worker in workers {
            keys.push(worker.await.unwrap());
        }
        keys.sort_unstable();
        assert_eq!(keys, [0, 1, 2]);
        assert!(queue.is_empty());
    }
}

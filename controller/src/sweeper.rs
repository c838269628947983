//! Deleting the objects of deleted files: soon, in batches, on a thread of its own. It also settles, in its rounds, files
//! whose pool did not answer when they were closed.
//!
//! What is to be deleted is noted in the map by the transaction that removes the file, so nothing is forgotten when
//! the process dies; what is sent here is only a hint that spares looking for it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use address_map::ids::{Ino, PoolId, TenantId};
use address_map::key::Key;
use address_map::map::Tree;
use address_map::namespace::object;
use address_map::record::ObjectRef;

use crate::session::DataPlane;

/// Hints that wait; more are dropped, and their objects go with the next round.
const HINTS_MAX: usize = 16 * 1024;
/// Objects deleted with one request and one transaction; what a request to an object store can name.
const BATCH: usize = 1000;
/// Batches of one tenant, before it is another one's turn.
const BATCHES_PER_TURN: usize = 64;
/// Between two rounds that look for what hints have missed.
const ROUND_EVERY: Duration = Duration::from_secs(60);

/// Files looked at in one round in each staging directory; the next round goes on with what is left.
const STAGED_MAX: usize = 16 * 1024;

/// Something that can be done now.
enum Hint {
    /// An object is not needed any more.
    Garbage(TenantId, ObjectRef),
    /// The last writer of a file of an object store is gone.
    Written(TenantId, Ino),
}

/// Takes hints about objects to delete.
pub struct Sweeper {
    hints: SyncSender<Hint>,
}

/// The other end, until [`start`] runs it.
pub struct Hints(Receiver<Hint>);

impl Sweeper {
    /// A sweeper and what it is to be started with.
    pub fn new() -> (Self, Hints) {
        let (hints, receiver) = sync_channel(HINTS_MAX);
        (Self { hints }, Hints(receiver))
    }

    /// An object of a tenant is to be deleted and noted as such.
    pub fn hint(&self, tenant: TenantId, object: ObjectRef) {
        // Full: the next round finds it. Gone: the process ends.
        let _ = self.hints.try_send(Hint::Garbage(tenant, object));
    }

    /// A file of an object store is not being written any more, and its bytes are not there yet.
    pub fn written(&self, tenant: TenantId, ino: Ino) {
        let _ = self.hints.try_send(Hint::Written(tenant, ino));
    }
}

/// Starts the thread; it ends with the data plane.
pub fn start(plane: &Arc<DataPlane>, hints: Hints) -> std::io::Result<()> {
    let plane = Arc::downgrade(plane);
    std::thread::Builder::new().name("sweeper".into()).spawn(move || run(&plane, &hints.0))?;
    Ok(())
}

/// How far the sweeping of a tenant has come with one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is no more that could be deleted.
    Done,
    /// There is more, from here on.
    More(Key),
    /// Of a whole batch nothing could be deleted: the pool may not answer. There may be more, from here on.
    Stuck(Key),
}

/// The rounds: when the next one is, and where it goes on.
struct Rounds {
    next: Instant,
    /// Tenants whose turn was not long enough.
    unfinished: BTreeMap<TenantId, Key>,
    /// Tenants with objects that cannot be deleted now: the next round begins behind those.
    stuck: BTreeMap<TenantId, Key>,
}

impl Rounds {
    fn pause(&self) -> Duration {
        match self.unfinished.is_empty() {
            true => self.next.saturating_duration_since(Instant::now()),
            false => Duration::ZERO,
        }
    }

    fn turn(&mut self, plane: &DataPlane, tenant: TenantId, from: Option<Key>) {
        let Ok(tree) = plane.map.tree(tenant) else { return };
        match plane.sweep(&tree, from) {
            Turn::Done => {}
            Turn::More(at) => drop(self.unfinished.insert(tenant, at)),
            Turn::Stuck(at) => drop(self.stuck.insert(tenant, at)),
        }
    }

    fn go_on(&mut self, plane: &Arc<DataPlane>) {
        for (tenant, from) in std::mem::take(&mut self.unfinished) {
            self.turn(plane, tenant, Some(from));
        }
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + ROUND_EVERY;
        plane.settle_what_is_left();
        let mut stuck = std::mem::take(&mut self.stuck);
        for tenant in plane.map.tenants() {
            if !self.unfinished.contains_key(&tenant) {
                self.turn(plane, tenant, stuck.remove(&tenant));
            }
        }
        plane.bring_what_is_left();
        plane.compare_caches();
    }
}

fn run(plane: &Weak<DataPlane>, hints: &Receiver<Hint>) {
    let next = Instant::now() + ROUND_EVERY;
    let mut rounds = Rounds { next, unfinished: BTreeMap::new(), stuck: BTreeMap::new() };
    loop {
        let first = match hints.recv_timeout(rounds.pause()) {
            Ok(hint) => Some(hint),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(plane) = plane.upgrade() else { return };
        let mut batch: BTreeMap<TenantId, Vec<ObjectRef>> = BTreeMap::new();
        for hint in first.into_iter().chain(hints.try_iter().take(BATCH - 1)) {
            match hint {
                Hint::Garbage(tenant, object) => batch.entry(tenant).or_default().push(object),
                Hint::Written(tenant, ino) => plane.bring_elsewhere(tenant, ino),
            }
        }
        for (tenant, objects) in batch {
            // A tenant that was deleted meanwhile has no objects any more.
            if let Ok(tree) = plane.map.tree(tenant) {
                plane.delete_objects(&tree, objects);
            }
        }
        rounds.go_on(&plane);
    }
}

impl DataPlane {
    /// Deletes objects of a tenant that are noted as garbage, for one turn; then it is others'. What cannot be deleted
    /// stays noted and keeps nothing else from it.
    pub fn sweep(&self, tree: &Tree, mut from: Option<Key>) -> Turn {
        for _ in 0..BATCHES_PER_TURN {
            let now = self.map.clock().timestamp();
            let due = match object::garbage(&tree.view(), now, from.as_ref(), BATCH) {
                Ok(due) => due,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot look for deleted objects"
                    );
                    return Turn::Done;
                }
            };
            let wanted = !due.objects.is_empty();
            let gone = self.delete_objects(tree, due.objects);
            let Some(next) = due.next else { return Turn::Done };
            if wanted && gone == 0 {
                return Turn::Stuck(next);
            }
            from = Some(next);
        }
        from.map_or(Turn::Done, Turn::More)
    }

    /// Brings to their object stores what was being written when its writers or the controller were lost, and removes
    /// what is left over in staging directories.
    fn bring_what_is_left(self: &Arc<Self>) {
        for pool in self.pools.all().into_iter().filter(|pool| pool.store.is_some()) {
            let keys = pool.files.keys(STAGED_MAX).unwrap_or_else(|error| {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot look into a staging directory"
                );
                Vec::new()
            });
            for (tenant, ino) in
                keys.iter().filter_map(|key| object::parse_address(key.trim_end_matches('~')))
            {
                self.bring_elsewhere(tenant, ino);
            }
        }
    }

    /// Deletes objects and the notes of them; what cannot be deleted stays noted. Answers how many are gone.
    fn delete_objects(&self, tree: &Tree, objects: Vec<ObjectRef>) -> usize {
        let mut by_pool: BTreeMap<PoolId, Vec<ObjectRef>> = BTreeMap::new();
        for object in objects {
            by_pool.entry(object.pool).or_default().push(object);
        }
        let gone: Vec<ObjectRef> = by_pool
            .into_iter()
            .filter_map(|(pool, objects)| Some(self.pools.open(pool)?.remove(objects)))
            .flatten()
            .collect();
        let noted = tree.write(|txn| {
            gone.iter().for_each(|object| object::swept(txn, object));
            Ok(())
        });
        if let Err(error) = noted {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot note that objects are deleted");
        }
        gone.len()
    }
}

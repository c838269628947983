//! Coherence: whoever may hold a copy of something that changes is told, and the change is acknowledged to its author
//! only when the copies are gone.
//!
//! A mount of the tenant itself hears of every change made by others. A mount that looks through a share is told only
//! about what it has looked at since it was last told: looking leaves a *watch*, telling takes it away. A VMDS that
//! does not answer in time is cut off; its successor begins with an empty cache.

use std::collections::{HashMap, HashSet, VecDeque, hash_map};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use address_map::ids::{NodeId, Slot, TenantId};
use address_map::limits::STALE_ITEMS_MAX;
use address_map::wire::{Stale, ToVmds};
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::{Forgettable, Session, SessionId, Touched};
use crate::lease::File;

/// How long a VMDS may take to forget something.
const FORGET_DEADLINE: Duration = Duration::from_secs(2);
/// Most inodes one session watches; the oldest is told to be forgotten first.
const WATCHES_PER_SESSION: usize = 128 * 1024;
/// Most invalidations kept for a mount whose VMDS is being replaced.
const MISSED_MAX: usize = 4096;

type Watcher = (SessionId, Slot);

/// An invalidation under way.
struct Fence {
    waiting: HashSet<SessionId>,
    deadline: Instant,
    done: Box<dyn FnOnce() + Send>,
}

/// A sign of life that is awaited.
struct Sign {
    session: SessionId,
    seen: Box<dyn FnOnce() + Send>,
}

/// Everything known of one session.
struct Member {
    session: Arc<Session>,
    watches: Mutex<VecDeque<(File, Slot)>>,
    /// What could not be said because no VMDS was there to hear it.
    missed: Mutex<Vec<Stale>>,
}

/// See the module.
pub struct Hub {
    members: RwLock<HashMap<SessionId, Arc<Member>>>,
    watchers: DashMap<File, SmallVec<[Watcher; 2]>>,
    fences: Mutex<HashMap<u64, Fence>>,
    /// Signs of life that are awaited, by the number of the fence that asks for them.
    signs: Mutex<HashMap<u64, Sign>>,
    next_fence: AtomicU64,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            members: RwLock::default(),
            watchers: DashMap::new(),
            fences: Mutex::default(),
            signs: Mutex::default(),
            next_fence: AtomicU64::new(1),
        }
    }

    pub(super) fn join(&self, session: &Arc<Session>) {
        let member = Member { session: session.clone(), watches: Mutex::default(), missed: Mutex::default() };
        self.members.write().insert(session.id, Arc::new(member));
    }

    pub(super) fn leave(&self, id: SessionId) {
        let Some(member) = self.members.write().remove(&id) else { return };
        for (file, slot) in member.watches.lock().drain(..) {
            self.unwatch(file, (id, slot));
        }
        self.acknowledge_all(id);
    }

    /// The sessions of a tenant.
    pub fn sessions_of(&self, tenant: TenantId) -> Vec<Arc<Session>> {
        let members = self.members.read();
        members.values().filter(|m| m.session.tenant() == tenant).map(|m| m.session.clone()).collect()
    }

    /// Notes that a session is about to look at an inode of somebody else. To be called before looking.
    pub(super) fn watch(&self, session: &Session, slot: Slot, file: File) {
        let watcher = (session.id, slot);
        {
            let mut watchers = self.watchers.entry(file).or_default();
            if watchers.contains(&watcher) {
                return;
            }
            watchers.push(watcher);
        }
        let Some(member) = self.members.read().get(&session.id).cloned() else {
            self.unwatch(file, watcher);
            return;
        };
        let oldest = {
            let mut watches = member.watches.lock();
            watches.push_back((file, slot));
            if watches.len() > WATCHES_PER_SESSION { watches.pop_front() } else { None }
        };
        if let Some((file, slot)) = oldest
            && self.unwatch(file, (session.id, slot))
        {
            let node = NodeId::new(slot, file.1);
            self.push(
                HashMap::from([(session.id, vec![Stale::Inode { node, data: false }])]),
                Box::new(|| {}),
            );
        }
    }

    /// Takes a watch away; answers whether it was there.
    fn unwatch(&self, file: File, watcher: Watcher) -> bool {
        let Some(mut watchers) = self.watchers.get_mut(&file) else { return false };
        let before = watchers.len();
        watchers.retain(|w| *w != watcher);
        let found = watchers.len() < before;
        drop(watchers);
        self.watchers.remove_if(&file, |_, watchers| watchers.is_empty());
        found
    }

    /// Tells everybody but the author of a change about it, and some about `items` besides; `done` runs when all copies
    /// are gone.
    pub(super) fn invalidate(
        &self,
        author: Watcher,
        tenant: TenantId,
        touched: &[Touched],
        mut items: Forgettable,
        done: Box<dyn FnOnce() + Send>,
    ) {
        for member in self.members.read().values() {
            if member.session.tenant() == tenant && member.session.id != author.0 {
                items.entry(member.session.id).or_default().extend(touched.iter().map(own_item));
            }
        }
        for change in touched {
            let (Touched::Entry { parent: ino, .. } | Touched::Inode { ino, .. }) = change;
            for (session, slot) in self.take_watchers((tenant, *ino), author) {
                let node = NodeId::new(slot, *ino);
                items.entry(session).or_default().push(Stale::Inode { node, data: true });
            }
        }
        self.push(items, done);
    }

    /// Takes all watches of an inode but the author's.
    fn take_watchers(&self, file: File, author: Watcher) -> SmallVec<[Watcher; 2]> {
        let Some(mut watchers) = self.watchers.get_mut(&file) else { return SmallVec::new() };
        let (kept, taken) = watchers.drain(..).partition(|watcher| *watcher == author);
        *watchers = kept;
        drop(watchers);
        self.watchers.remove_if(&file, |_, watchers| watchers.is_empty());
        taken
    }

    /// Sends a session a message, if it is there.
    pub(super) fn tell(&self, to: SessionId, message: &ToVmds) {
        if let Some(member) = self.members.read().get(&to).cloned() {
            member.session.send_now(message);
        }
    }

    /// Makes sessions forget; `done` runs when they have, or are cut off.
    pub fn push(&self, items: HashMap<SessionId, Vec<Stale>>, done: Box<dyn FnOnce() + Send>) {
        if items.is_empty() {
            return done();
        }
        let members: Vec<_> = {
            let known = self.members.read();
            items.into_iter().filter_map(|(id, items)| Some((known.get(&id)?.clone(), items))).collect()
        };
        let fence = self.next_fence.fetch_add(1, Ordering::Relaxed);
        let waiting = members.iter().map(|(member, _)| member.session.id).collect();
        let deadline = Instant::now() + FORGET_DEADLINE;
        self.fences.lock().insert(fence, Fence { waiting, deadline, done });
        for (member, items) in members {
            if !send_stale(&member, fence, &items) {
                keep_missed(&member, items);
                self.acknowledge(fence, member.session.id);
            }
        }
        self.finish_if_complete(fence);
    }

    /// Like [`Hub::push`], but waits. Answers how many of the sessions have forgotten.
    pub fn push_and_wait(&self, items: HashMap<SessionId, Vec<Stale>>) -> usize {
        let sessions: Vec<_> = items.keys().copied().collect();
        let (done, finished) = mpsc::channel();
        self.push(
            items,
            Box::new(move || {
                // Whoever waited has given up: nobody to tell.
                let _ = done.send(());
            }),
        );
        // A fence ends by itself at its deadline; twice that is never reached.
        let _ = finished.recv_timeout(FORGET_DEADLINE * 2);
        let members = self.members.read();
        let connected = |id: &&SessionId| members.get(id).is_none_or(|m| m.session.link.lock().is_some());
        sessions.iter().filter(connected).count()
    }

    /// A session has forgotten what a fence named.
    pub(super) fn acknowledge(&self, fence: u64, session: SessionId) {
        let sign = match self.signs.lock().entry(fence) {
            hash_map::Entry::Occupied(sign) if sign.get().session == session => Some(sign.remove()),
            _ => None,
        };
        if let Some(sign) = sign {
            return (sign.seen)();
        }
        if let Some(open) = self.fences.lock().get_mut(&fence) {
            open.waiting.remove(&session);
        }
        self.finish_if_complete(fence);
    }

    /// Asks the VMDS of a session for a sign of life; `seen` runs if that one gives it. The question is an invalidation of
    /// nothing.
    pub fn ask_for_sign_of_life(&self, session: &Session, seen: Box<dyn FnOnce() + Send>) {
        let fence = self.next_fence.fetch_add(1, Ordering::Relaxed);
        self.signs.lock().insert(fence, Sign { session: session.id, seen });
        // If it cannot be sent there is no VMDS, and none gives a sign.
        session.send_now(&ToVmds::Stale { fence, items: Vec::new() });
    }

    /// Nothing that was awaited from a VMDS comes any more.
    fn acknowledge_all(&self, session: SessionId) {
        self.signs.lock().retain(|_, sign| sign.session != session);
        let fences: Vec<_> = self.fences.lock().keys().copied().collect();
        fences.into_iter().for_each(|fence| self.acknowledge(fence, session));
    }

    fn finish_if_complete(&self, fence: u64) {
        let complete = {
            let mut fences = self.fences.lock();
            match fences.get(&fence) {
                Some(open) if open.waiting.is_empty() => fences.remove(&fence),
                _ => None,
            }
        };
        if let Some(open) = complete {
            (open.done)();
        }
    }

    /// A VMDS is there again (or for the first time): nothing is awaited from its predecessor, and it hears what that
    /// one missed.
    pub(super) fn connected(&self, session: &Session) {
        self.acknowledge_all(session.id);
        let Some(member) = self.members.read().get(&session.id).cloned() else { return };
        let missed = std::mem::take(&mut *member.missed.lock());
        if !missed.is_empty() {
            self.push(HashMap::from([(session.id, missed)]), Box::new(|| {}));
        }
    }

    /// Hears those who are awaited, also while requests of theirs take long. To be called a few times a second.
    pub fn hear(&self) {
        let mut awaited: HashSet<SessionId> = self.signs.lock().values().map(|sign| sign.session).collect();
        awaited.extend(self.fences.lock().values().flat_map(|fence| fence.waiting.iter().copied()));
        for id in awaited {
            let Some(member) = self.members.read().get(&id).cloned() else { continue };
            member.session.heard().into_iter().for_each(|fence| self.acknowledge(fence, id));
        }
    }

    /// Ends fences that are overdue and cuts off who did not answer. To be called a few times a second.
    pub fn expire_fences(&self) {
        let now = Instant::now();
        let overdue: Vec<(u64, Vec<SessionId>)> = {
            let fences = self.fences.lock();
            let overdue = fences.iter().filter(|(_, fence)| fence.deadline <= now);
            overdue.map(|(number, fence)| (*number, fence.waiting.iter().copied().collect())).collect()
        };
        for (fence, silent) in overdue {
            for id in silent {
                if let Some(member) = self.members.read().get(&id).cloned() {
                    let tenant = &member.session.tenant_name;
                    tracing::warn!(%tenant, "the VMDS does not answer invalidations; cutting it off");
                    member.session.cut_off();
                }
                self.acknowledge(fence, id);
            }
        }
    }
}

fn own_item(touched: &Touched) -> Stale {
    match touched {
        Touched::Entry { parent, name } => {
            Stale::Entry { parent: NodeId::new(Slot::OWN, *parent), name: name.clone() }
        }
        Touched::Inode { ino, data } => Stale::Inode { node: NodeId::new(Slot::OWN, *ino), data: *data },
    }
}

/// Several frames if need be; only the last one carries the fence that is awaited.
fn send_stale(member: &Member, fence: u64, items: &[Stale]) -> bool {
    /// A fence nobody waits for.
    const NO_FENCE: u64 = 0;
    let mut chunks = items.chunks(STALE_ITEMS_MAX).peekable();
    while let Some(chunk) = chunks.next() {
        let fence = if chunks.peek().is_some() { NO_FENCE } else { fence };
        if !member.session.send_now(&ToVmds::Stale { fence, items: chunk.to_vec() }) {
            return false;
        }
    }
    true
}

fn keep_missed(member: &Member, items: Vec<Stale>) {
    let mut missed = member.missed.lock();
    let room = MISSED_MAX.saturating_sub(missed.len());
    if items.len() > room {
        tracing::error!(tenant = %member.session.tenant_name, "too much changed while the VMDS was away; copies at the mount may be old until their time is up");
    }
    missed.extend(items.into_iter().take(room));
}

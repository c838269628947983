//! The table of leases: one descriptor per inode, whatever number of handles is open.
//!
//! A pure state machine. It makes no system call and sends nothing: every input returns the [`Step`]s that are to
//! be taken, in order, without its lock. At most one order to the controller is in flight per inode, so the
//! controller never sees them in another order than they were decided in.
//!
//! Counts of open handles are only of this process: handles opened by an earlier generation are served (a lease is
//! taken when one is used) but not counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use address_map::error::Refusal;
use address_map::ids::{NodeId, Slot};
use parking_lot::Mutex;

mod step;

use step::{Closer, Waiter};
pub(crate) use step::{Denied, Granted, Step, Steps, Want};

use super::fd::Held;
use crate::link::Holding;

/// Most requests that wait for the lease of one inode.
const WAITING_MAX: usize = 4096;

enum Busy {
    Asking { write: bool, riders: Vec<(Want, Waiter)> },
    Closing { closers: Vec<Closer> },
    Dropping,
}

#[derive(Default)]
struct Entry {
    held: Option<Arc<Held>>,
    readers: u32,
    writers: u32,
    /// The controller believes that this mount writes.
    marked: bool,
    /// Others may be writing too; until nothing here does.
    contended: bool,
    busy: Option<Busy>,
    waiting: Vec<(Want, Waiter)>,
    closers: Vec<Closer>,
    /// The last name is gone: drop the lease with the last handle.
    orphaned: bool,
    /// The last handle of this process was closed: what others may want the room of is not kept.
    closed: bool,
    /// The kernel has forgotten the inode: no handle of a process before this one is left. The controller is to be told.
    forgotten: bool,
    /// Changes of bytes that go on: nobody is the last writer meanwhile. Their requests may have been answered, or be those
    /// of handles of a process before this one, which are not counted.
    changing: u32,
    /// The last writer has closed while a change went on: the controller is told when that has ended.
    close_late: bool,
    /// The answer in flight may be from before a recall.
    recalled: bool,
    /// How the open handles move bytes, decided by the first of them.
    backing: Option<u32>,
    /// When it became idle, if it is.
    idle_since: Option<u64>,
}

impl Entry {
    fn is_open(&self) -> bool {
        self.readers > 0 || self.writers > 0
    }

    fn in_use(&self) -> bool {
        self.is_open() || self.changing > 0
    }

    /// Whether the lease is not to be kept for later, and no handle needs it now.
    fn is_let_go(&self) -> bool {
        let unwanted = self.closed && self.held.as_ref().is_some_and(|held| held.is_copy());
        (self.orphaned || self.forgotten || unwanted) && !self.is_open()
    }

    /// Whether the controller is to be told now that nobody writes any more.
    fn must_close(&mut self) -> bool {
        if self.writers > 0 || !self.marked {
            return false;
        }
        let wanted = !self.closers.is_empty() || self.close_late || self.is_let_go();
        self.close_late = wanted && self.changing > 0;
        wanted && self.changing == 0
    }

    fn satisfies(&self, node: NodeId, want: Want) -> Option<Arc<Held>> {
        // Every opening of another tenant's file is decided by the controller.
        if !node.is_own() && matches!(want, Want::Open { .. }) {
            return None;
        }
        let held = self.held.clone().filter(|held| held.serves(want.bytes()))?;
        (!want.write() || (held.lease.write && self.marked)).then_some(held)
    }

    /// The bytes of a lease that is no file's own are elsewhere now.
    fn lapse(&mut self) -> Option<Step> {
        let held = self.held.as_mut().filter(|held| held.lease.floating)?;
        Some(Step::Discard(std::mem::replace(held, Arc::new(Held::lapsed()))))
    }

    fn grant(&mut self, node: NodeId, want: Want, held: Arc<Held>, passthrough: bool) -> Granted {
        if let Want::Open { write } = want {
            self.closed = false;
            if !self.is_open() {
                self.backing = held.lease.backing.filter(|_| passthrough && node.is_own());
            }
            let count = if write { &mut self.writers } else { &mut self.readers };
            *count = count.saturating_add(1);
        }
        if want == (Want::Use { write: true }) {
            self.changing += 1;
        }
        Granted { held, backing: self.backing }
    }
}

struct Table {
    entries: HashMap<NodeId, Entry>,
    idle: BTreeMap<u64, NodeId>,
    ticks: u64,
    held: usize,
    /// Most leases kept when nothing is open.
    keep_max: usize,
    /// Most descriptors this process can hold.
    hold_max: usize,
    passthrough: bool,
}

/// The table.
pub(crate) struct Leases(Mutex<Table>);

impl Leases {
    /// A table that keeps at most `keep_max` leases of which no handle is open, and at most `hold_max` at all.
    pub(crate) fn new(keep_max: usize, hold_max: usize) -> Self {
        Self(Mutex::new(Table {
            entries: HashMap::new(),
            idle: BTreeMap::new(),
            ticks: 0,
            held: 0,
            keep_max: keep_max.min(hold_max),
            hold_max,
            passthrough: false,
        }))
    }

    /// The kernel can move bytes itself.
    pub(crate) fn allow_passthrough(&self) {
        self.0.lock().passthrough = true;
    }

    /// The descriptor of an inode, if there is one.
    pub(crate) fn held(&self, node: NodeId) -> Option<Arc<Held>> {
        self.0.lock().entries.get(&node)?.held.clone()
    }

    /// Whether a handle of this process can write to the inode, and no other mount can.
    pub(crate) fn is_sole_writer(&self, node: NodeId) -> bool {
        self.0.lock().entries.get(&node).is_some_and(|entry| entry.writers > 0 && !entry.contended)
    }

    /// Somebody else has changed the inode, or may be writing it from now on.
    pub(crate) fn contended(&self, node: NodeId) {
        if let Some(entry) = self.0.lock().entries.get_mut(&node) {
            entry.contended = entry.marked || matches!(entry.busy, Some(Busy::Asking { write: true, .. }));
        }
    }

    /// Whether a handle of this process is open, or is being opened.
    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        let table = self.0.lock();
        table.entries.get(&node).is_some_and(|entry| entry.in_use() || entry.busy.is_some())
    }

    /// Whether one more descriptor can be held.
    pub(crate) fn has_room(&self) -> bool {
        let table = self.0.lock();
        table.held < table.hold_max || !table.idle.is_empty()
    }

    /// A request wants the lease of `node`. What is granted for [`Want::Use`] with `write` is a change of the bytes, until
    /// [`Leases::has_changed`].
    pub(crate) fn want(
        &self,
        node: NodeId,
        want: Want,
        done: impl FnOnce(Result<Granted, Denied>) + Send + 'static,
    ) -> Steps {
        let mut table = self.0.lock();
        let passthrough = table.passthrough;
        let entry = table.entry(node);
        if let Some(held) = entry.satisfies(node, want) {
            let granted = entry.grant(node, want, held, passthrough);
            table.rest(node);
            return Steps::from([Step::Answer(Box::new(done), Ok(granted))]);
        }
        if entry.waiting.len() >= WAITING_MAX {
            return Steps::from([Step::Answer(Box::new(done), Err(Refusal::Io.into()))]);
        }
        entry.waiting.push((want, Box::new(done)));
        table.settle(node)
    }

    /// A handle of this process is closed; `done` runs when the controller knows what it must.
    pub(crate) fn release(&self, node: NodeId, write: bool, done: impl FnOnce() + Send + 'static) -> Steps {
        let mut table = self.0.lock();
        let entry = table.entry(node);
        let count = if write { &mut entry.writers } else { &mut entry.readers };
        *count = count.saturating_sub(1);
        entry.closed = !entry.is_open();
        entry.closers.push(Box::new(done));
        table.settle(node)
    }

    /// A handle of an earlier process is closed.
    pub(crate) fn release_unknown(
        &self,
        node: NodeId,
        write: bool,
        done: impl FnOnce() + Send + 'static,
    ) -> Steps {
        let mut table = self.0.lock();
        let entry = table.entry(node);
        // Who else writes is not known; the controller takes the size once more with the next one.
        entry.marked |= write;
        entry.closers.push(Box::new(done));
        table.settle(node)
    }

    /// The controller has made a file and leased it for writing; a handle is open.
    pub(crate) fn created(&self, node: NodeId, held: Held, write: bool) -> (Granted, Steps) {
        let mut table = self.0.lock();
        let passthrough = table.passthrough;
        let mut steps = Steps::new();
        let held = table.hold(node, held, &mut steps);
        let entry = table.entry(node);
        entry.marked = true;
        let granted = entry.grant(node, Want::Open { write }, held, passthrough);
        steps.append(&mut table.settle(node));
        (granted, steps)
    }

    /// The controller has answered [`Step::Ask`].
    pub(crate) fn answered(&self, node: NodeId, answer: Result<Held, Refusal>) -> Steps {
        let mut table = self.0.lock();
        let passthrough = table.passthrough;
        let entry = table.entry(node);
        let Some(Busy::Asking { write, mut riders }) = entry.busy.take() else {
            return table.settle(node);
        };
        let recalled = std::mem::take(&mut entry.recalled);
        let mut steps = Steps::new();
        match answer {
            Ok(held) if recalled => {
                // Granted before the recall, perhaps: ask again.
                steps.push_back(Step::Discard(Arc::new(held)));
                riders.append(&mut entry.waiting);
                entry.waiting = riders;
            }
            Ok(held) => {
                let held = table.hold(node, held, &mut steps);
                let entry = table.entry(node);
                entry.marked |= write;
                entry.contended |= write && !held.lease.alone;
                for (want, done) in riders {
                    let granted = if want.write() && !held.lease.write {
                        Err(Refusal::ReadOnly.into())
                    } else {
                        Ok(entry.grant(node, want, Arc::clone(&held), passthrough))
                    };
                    steps.push_back(Step::Answer(done, granted));
                }
            }
            Err(refusal) => {
                for (want, done) in riders {
                    // Who only wants to read may still be allowed to.
                    if write && !want.write() {
                        entry.waiting.push((want, done));
                    } else {
                        steps.push_back(Step::Answer(done, Err(refusal.into())));
                    }
                }
            }
        }
        steps.append(&mut table.settle(node));
        steps
    }

    /// The controller has answered [`Step::CloseWrite`].
    pub(crate) fn closed(&self, node: NodeId) -> Steps {
        let mut table = self.0.lock();
        let mut steps = Steps::new();
        let entry = table.entry(node);
        if let Some(Busy::Closing { closers }) = entry.busy.take() {
            steps.extend(closers.into_iter().map(Step::Released));
        }
        // What was written has gone to the object store.
        steps.extend(entry.lapse());
        steps.append(&mut table.settle(node));
        steps
    }

    /// The controller has been told of [`Step::Drop`].
    pub(crate) fn dropped(&self, node: NodeId) -> Steps {
        let mut table = self.0.lock();
        table.entry(node).busy = None;
        table.settle(node)
    }

    /// A change has ended for which the lease was [`Want::Use`]d.
    pub(crate) fn has_changed(&self, node: NodeId) -> Steps {
        let mut table = self.0.lock();
        let changing = &mut table.entry(node).changing;
        *changing = changing.saturating_sub(1);
        table.settle(node)
    }

    /// Gives up the lease of an inode that nobody uses, at once; answers whether there was one to give up.
    pub(crate) fn surrender(&self, node: NodeId) -> Option<Arc<Held>> {
        let mut table = self.0.lock();
        let idle = table.entries.get(&node).is_some_and(|entry| {
            !entry.in_use() && !entry.marked && entry.busy.is_none() && entry.waiting.is_empty()
        });
        let held = if idle { table.entry(node).held.take() } else { None };
        if held.is_some() {
            table.held -= 1;
            table.rest(node);
        }
        held
    }

    /// The inode has changed at the hands of others, or by its name: a lease that floats leads to what it was. Who writes
    /// goes on with the file that all write to.
    pub(crate) fn changed(&self, node: NodeId) -> Steps {
        let mut table = self.0.lock();
        let Some(entry) = table.entries.get_mut(&node) else { return Steps::new() };
        entry.recalled |= matches!(entry.busy, Some(Busy::Asking { .. }));
        if entry.marked { Steps::new() } else { entry.lapse().into_iter().collect() }
    }

    /// Another file has taken the place of the one that a lease leads to.
    pub(crate) fn replaced(&self, node: NodeId, held: &Arc<Held>) -> Steps {
        let mut table = self.0.lock();
        let Some(entry) = table.entries.get_mut(&node) else { return Steps::new() };
        let is_it = entry.held.as_ref().is_some_and(|current| Arc::ptr_eq(current, held));
        if is_it { entry.lapse().into_iter().collect() } else { Steps::new() }
    }

    /// The inode has lost its last name.
    pub(crate) fn orphaned(&self, node: NodeId) -> Steps {
        let mut table = self.0.lock();
        match table.entries.get_mut(&node) {
            Some(entry) => entry.orphaned = true,
            None => return Steps::new(),
        }
        table.settle(node)
    }

    /// The kernel has forgotten the inode, which a process before this one may have had open.
    pub(crate) fn forgotten(&self, node: NodeId) -> Steps {
        let mut table = self.0.lock();
        table.entry(node).forgotten = true;
        table.settle(node)
    }

    /// Every lease there is.
    pub(crate) fn holdings(&self) -> Vec<Holding> {
        let table = self.0.lock();
        let held = table.entries.iter().filter_map(|(node, entry)| Some((node, entry, entry.held.as_ref()?)));
        held.map(|(node, entry, held)| Holding {
            node: *node,
            write: entry.marked,
            backing: entry.backing.or(held.lease.backing),
        })
        .collect()
    }

    /// Everything seen through a slot has been recalled: closes its descriptors and names the inodes concerned.
    pub(crate) fn recall(&self, slot: Slot) -> (Vec<NodeId>, Steps) {
        let mut table = self.0.lock();
        let nodes: Vec<_> = table.entries.keys().copied().filter(|node| node.slot() == slot).collect();
        let mut steps = Steps::new();
        for &node in &nodes {
            let entry = table.entry(node);
            entry.marked = false;
            entry.contended = false;
            entry.recalled = matches!(entry.busy, Some(Busy::Asking { .. }));
            if let Some(held) = entry.held.take() {
                steps.push_back(Step::Discard(held));
                table.held -= 1;
            }
            steps.append(&mut table.settle(node));
        }
        (nodes, steps)
    }
}

impl Table {
    fn entry(&mut self, node: NodeId) -> &mut Entry {
        let entry = self.entries.entry(node).or_default();
        if let Some(since) = entry.idle_since.take() {
            self.idle.remove(&since);
        }
        entry
    }

    fn hold(&mut self, node: NodeId, held: Held, steps: &mut Steps) -> Arc<Held> {
        let held = Arc::new(held);
        match self.entry(node).held.replace(Arc::clone(&held)) {
            Some(replaced) => steps.push_back(Step::Discard(replaced)),
            None => self.held += 1,
        }
        held
    }

    /// Decides what happens next with an inode, unless an order about it is in flight.
    fn settle(&mut self, node: NodeId) -> Steps {
        let mut steps = Steps::new();
        let passthrough = self.passthrough;
        let full = self.held >= self.hold_max && self.idle.is_empty();
        let entry = self.entry(node);
        if entry.busy.is_some() {
            return steps;
        }
        let mut unsatisfied = Vec::new();
        for (want, done) in std::mem::take(&mut entry.waiting) {
            match entry.satisfies(node, want) {
                Some(held) => {
                    let granted = entry.grant(node, want, held, passthrough);
                    steps.push_back(Step::Answer(done, Ok(granted)));
                }
                None => unsatisfied.push((want, done)),
            }
        }
        if entry.must_close() {
            entry.marked = false;
            entry.contended = false;
            entry.waiting = unsatisfied;
            entry.busy = Some(Busy::Closing { closers: std::mem::take(&mut entry.closers) });
            steps.push_back(Step::CloseWrite { node });
            return steps;
        }
        steps.extend(std::mem::take(&mut entry.closers).into_iter().map(Step::Released));
        if !unsatisfied.is_empty() {
            if full && entry.held.is_none() {
                let refuse = |(_, done)| Step::Answer(done, Err(Denied::TooManyFiles));
                steps.extend(unsatisfied.into_iter().map(refuse));
            } else {
                let write = unsatisfied.iter().any(|(want, _)| want.write());
                let fill = unsatisfied.iter().any(|(want, _)| want.bytes());
                entry.busy = Some(Busy::Asking { write, riders: unsatisfied });
                steps.push_back(Step::Ask { node, write, fill });
                return steps;
            }
        }
        if entry.is_let_go() && !entry.in_use() && (entry.held.is_some() || entry.forgotten) {
            steps.push_back(self.let_go(node));
            return steps;
        }
        self.rest(node);
        while self.held > self.keep_max {
            let Some((_, oldest)) = self.idle.pop_first() else { break };
            steps.push_back(self.let_go(oldest));
        }
        steps
    }

    /// Closes the descriptor of an inode that nobody uses.
    fn let_go(&mut self, node: NodeId) -> Step {
        let entry = self.entry(node);
        entry.busy = Some(Busy::Dropping);
        let forgotten = std::mem::take(&mut entry.forgotten);
        let held = entry.held.take();
        self.held -= usize::from(held.is_some());
        Step::Drop { node, held, forgotten }
    }

    /// Notes that nothing happens with an inode any more, if so.
    fn rest(&mut self, node: NodeId) {
        let Some(entry) = self.entries.get_mut(&node) else { return };
        if entry.busy.is_some() || entry.in_use() || entry.marked {
            return;
        }
        if entry.held.is_none() {
            self.entries.remove(&node);
        } else if entry.idle_since.is_none() {
            self.ticks += 1;
            entry.idle_since = Some(self.ticks);
            self.idle.insert(self.ticks, node);
        }
    }
}

#[cfg(test)]
mod tests;

//! What the controller says of its own accord: somebody else has changed something.

use std::sync::Arc;

use address_map::ids::Slot;
use address_map::wire::Stale;

use super::Fs;
use crate::data::leases::{Step, Steps};
use crate::link::{Event, Holding};
use crate::notices::{Fence, Notice};

impl Fs {
    /// The leases held, for a controller that does not know of them.
    pub(crate) fn holdings(&self) -> Vec<Holding> {
        self.leases.holdings()
    }

    /// Forgets what `event` names, and sees to it that the kernel does.
    pub(crate) fn on_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Orphaned { node } => {
                self.cache.forget(|facts| facts.attr_unknown(node));
                self.drive(self.leases.orphaned(node));
            }
            Event::Stale { fence, items } => {
                // Answered when the last notice that holds it is done with: at once, if there is none.
                let fence = Fence::new(Arc::clone(&self.link), fence);
                for item in items {
                    self.forget_item(item, &fence);
                }
            }
        }
    }

    fn forget_item(self: &Arc<Self>, item: Stale, fence: &Arc<Fence>) {
        match item {
            Stale::Entry { parent, name } => {
                self.cache.forget(|facts| facts.entry_unknown(parent, &name));
                // The kernel asks for each name in a foreign directory whenever it is used.
                if parent.is_own() {
                    self.notices.push(Notice::Entry { parent, name }, fence);
                }
            }
            Stale::Inode { node, data } => {
                // First, so that what the kernel asks from now on is not answered for long.
                self.leases.contended(node);
                self.cache.forget(|facts| facts.attr_unknown(node));
                if let Some(held) = self.leases.held(node) {
                    held.forget_charge();
                }
                self.drive(self.leases.changed(node));
                if data || node.is_own() {
                    self.notices.push(Notice::Inode { node, data }, fence);
                }
            }
            Stale::Slot(slot) => self.forget_slot(slot, fence),
        }
    }

    fn forget_slot(self: &Arc<Self>, slot: Slot, fence: &Arc<Fence>) {
        let mut seen = Vec::new();
        self.cache.forget_removed(slot);
        if slot == Slot::OWN {
            seen = self.cache.nodes();
            self.cache.forget_all();
            self.notices.push(Notice::AllEntries, fence);
        }
        self.cache.forget_foreign();
        let (leased, steps) = self.leases.recall(slot);
        for step in steps {
            match step {
                // The descriptors count: the fence is answered when they are closed.
                Step::Discard(held) => {
                    let fence = Arc::clone(fence);
                    self.close(held, move || drop(fence));
                }
                other => self.drive(Steps::from([other])),
            }
        }
        for node in leased.into_iter().chain(seen) {
            self.notices.push(Notice::Inode { node, data: true }, fence);
        }
    }
}

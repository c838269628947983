//! What this process knows of the tenant's own tree, so that most questions of the kernel need no round trip.
//!
//! The controller pushes every change made by others, and the answers to own changes carry the attributes as they
//! are afterwards; so what is here is true. Every question to the controller takes a [`Stamp`] when it is asked,
//! and of its answer only those facts are kept that have not changed since. Trees of other tenants are not cached: each
//! question about them is decided by the controller at the time it is asked. The one exception is that an inode has no
//! extended attributes: the kernel asks for its access list right after its attributes, with every access.

mod history;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use address_map::attr::Attr;
use address_map::ids::{NodeId, Slot};
use address_map::name::Name;
use address_map::wire::ListEntry;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

pub(crate) use history::Stamp;
use history::{Fact, History};

/// Fewest and most pages of directory listings kept.
const PAGES: (usize, usize) = (4, 64);
/// Attributes and entries kept for each page that is. A page takes some 100 KiB.
const ENTRIES_PER_PAGE: usize = 1024;
/// Fewest attributes and entries a cache is made for.
const CAPACITY_MIN: usize = 64;
/// Most attribute names (present or absent) remembered of one inode.
const XATTRS_PER_NODE: usize = 8;
/// Largest value of an extended attribute that is kept, in bytes.
const XATTR_CACHED_MAX: usize = 512;
/// Symlink targets, xattrs and inodes without a name are kept for one of this many cached inodes.
const RARE: usize = 8;

/// A page of a directory, as the controller answered it.
#[derive(Debug)]
pub(crate) struct Page {
    /// The directory.
    pub(crate) dir: NodeId,
    /// The page holds entries whose cookies are larger than this.
    pub(crate) after: u64,
    /// Entries in the order of their cookies.
    pub(crate) entries: Vec<ListEntry>,
    /// No entries follow.
    pub(crate) end: bool,
    /// When it was asked for: until something changes, its attributes are true as well.
    pub(crate) stamp: Stamp,
}

impl Page {
    /// Index of the first entry after `offset`, if this page tells what comes there.
    pub(crate) fn position(&self, offset: u64) -> Option<usize> {
        if offset < self.after {
            return None;
        }
        let index = self.entries.partition_point(|entry| entry.cookie <= offset);
        (index < self.entries.len() || self.end).then_some(index)
    }
}

type XattrNames = Vec<(Box<[u8]>, Option<Arc<[u8]>>)>;

/// The cache.
pub(crate) struct Namespace {
    /// Held by whoever changes the cache, so that checking a stamp and acting on it are one step.
    history: Mutex<History>,
    attrs: Cache<NodeId, Attr>,
    entries: Cache<(NodeId, Name), Option<NodeId>>,
    targets: Cache<NodeId, Arc<[u8]>>,
    xattrs: Cache<NodeId, Arc<XattrNames>>,
    /// Inodes of other tenants without extended attributes.
    bare: Cache<NodeId, ()>,
    /// Inodes that were removed here and that a program may have open without a lease, as it may directories and pipes.
    removed: Cache<NodeId, Attr>,
    pages: Mutex<VecDeque<Arc<Page>>>,
    pages_max: usize,
}

impl Namespace {
    /// An empty cache of at most `capacity` attributes and as many entries (but never fewer than some), with listings in
    /// proportion.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(CAPACITY_MIN);
        Self {
            history: Mutex::default(),
            attrs: Cache::new(capacity),
            entries: Cache::new(capacity),
            targets: Cache::new(capacity / RARE),
            xattrs: Cache::new(capacity / RARE),
            bare: Cache::new(capacity / RARE),
            removed: Cache::new(capacity / RARE),
            pages: Mutex::default(),
            pages_max: (capacity / ENTRIES_PER_PAGE).clamp(PAGES.0, PAGES.1),
        }
    }

    /// To be taken before a question is sent.
    pub(crate) fn stamp(&self) -> Stamp {
        self.history.lock().now()
    }

    /// Whether nothing at all has changed since `stamp`.
    pub(crate) fn is_current(&self, stamp: Stamp) -> bool {
        self.stamp() == stamp
    }

    /// Attributes of an inode.
    pub(crate) fn attr(&self, node: NodeId) -> Option<Attr> {
        self.attrs.get(&node)
    }

    /// What a name leads to; `Some(None)` when it is known to lead nowhere.
    pub(crate) fn entry(&self, parent: NodeId, name: &Name) -> Option<Option<NodeId>> {
        // The key needs an owned name; up to 24 bytes it is copied without allocating.
        self.entries.get(&(parent, name.clone()))
    }

    /// Target of a symbolic link.
    pub(crate) fn target(&self, node: NodeId) -> Option<Arc<[u8]>> {
        self.targets.get(&node)
    }

    /// Value of an extended attribute; `Some(None)` when it is known not to exist.
    pub(crate) fn xattr(&self, node: NodeId, name: &[u8]) -> Option<Option<Arc<[u8]>>> {
        let names = self.xattrs.get(&node)?;
        names.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.clone())
    }

    /// Whether an inode of another tenant is known to have no extended attributes.
    pub(crate) fn is_bare(&self, node: NodeId) -> bool {
        self.bare.get(&node).is_some()
    }

    /// A page that tells what comes after `offset` in a directory.
    pub(crate) fn page(&self, dir: NodeId, offset: u64) -> Option<Arc<Page>> {
        let mut pages = self.pages.lock();
        let found = pages.iter().position(|page| page.dir == dir && page.position(offset).is_some())?;
        let page = pages.remove(found)?;
        pages.push_back(Arc::clone(&page));
        Some(page)
    }

    /// Attributes of an inode that no longer has a name, as they were when it lost the last one.
    pub(crate) fn removed(&self, node: NodeId) -> Option<Attr> {
        self.removed.get(&node)
    }

    /// An inode has lost its last name. The kernel may go on asking about it until it forgets it.
    pub(crate) fn remember_removed(&self, node: NodeId, attr: Attr) {
        self.removed.insert(node, attr);
    }

    /// A tree is no longer seen here.
    pub(crate) fn forget_removed(&self, slot: Slot) {
        self.removed.retain(|node, _| node.slot() != slot);
    }

    /// All inodes with cached attributes.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.attrs.iter().map(|(node, _)| node).collect()
    }

    /// Records the answer to a question asked at `stamp`, save for facts that have changed since. Tells whether all
    /// of it was recorded: if not, the answer may be used once but not kept, by the kernel neither.
    pub(crate) fn learn(&self, stamp: Stamp, record: impl FnOnce(&Facts<'_>)) -> bool {
        self.record(Some(stamp), false, record)
    }

    /// Records the answer to a change asked for at `stamp`. If another change of the same fact was answered in
    /// between, the order of the two is unknown, and the fact is forgotten instead. Tells whether all was recorded.
    pub(crate) fn change(&self, stamp: Stamp, record: impl FnOnce(&Facts<'_>)) -> bool {
        self.record(Some(stamp), true, record)
    }

    /// Forgets what `record` names, because somebody else has changed it.
    pub(crate) fn forget(&self, record: impl FnOnce(&Facts<'_>)) {
        self.record(None, true, record);
    }

    fn record(&self, asked: Option<Stamp>, changes: bool, record: impl FnOnce(&Facts<'_>)) -> bool {
        let mut history = self.history.lock();
        let begun = history.now();
        let facts = Facts {
            space: self,
            history: RefCell::new(&mut history),
            asked,
            begun,
            changes,
            all: Cell::new(true),
        };
        record(&facts);
        facts.all.get()
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) {
        let mut history = self.history.lock();
        history.note_all();
        self.attrs.clear();
        self.entries.clear();
        self.targets.clear();
        self.xattrs.clear();
        self.bare.clear();
        self.pages.lock().clear();
    }

    /// Forgets what is known of other tenants' inodes: a share has ended.
    pub(crate) fn forget_foreign(&self) {
        self.history.lock().note_all();
        self.bare.clear();
    }

    /// Frees memory of an inode that the kernel no longer remembers. What is known of it stays true.
    pub(crate) fn let_go(&self, node: NodeId) {
        self.attrs.remove(&node);
        self.targets.remove(&node);
        self.xattrs.remove(&node);
        self.bare.remove(&node);
        self.removed.remove(&node);
    }
}

/// Writes to the cache; handed out while the cache may be written.
pub(crate) struct Facts<'a> {
    space: &'a Namespace,
    history: RefCell<&'a mut History>,
    /// When the question was asked; nothing is recorded without one.
    asked: Option<Stamp>,
    /// When the recording began: what it changes itself is not held against it.
    begun: Stamp,
    /// The facts are changed, not only learnt.
    changes: bool,
    /// All facts were recorded.
    all: Cell<bool>,
}

/// What to do with a fact.
#[derive(PartialEq, Eq)]
enum Verdict {
    /// It is true.
    Keep,
    /// Nothing is known any more.
    Forget,
    /// It is old; what is known may be newer.
    Ignore,
}

impl Facts<'_> {
    fn judge(&self, fact: Fact<'_>) -> Verdict {
        let mut history = self.history.borrow_mut();
        let unchanged = self.asked.is_some_and(|asked| history.is_unchanged(fact, asked, self.begun));
        if self.changes {
            history.note(fact);
        }
        self.all.set(self.all.get() && unchanged);
        match (unchanged, self.changes) {
            (true, _) => Verdict::Keep,
            (false, true) => Verdict::Forget,
            (false, false) => Verdict::Ignore,
        }
    }

    /// The attributes of `node` are `attr`.
    pub(crate) fn attr(&self, node: NodeId, attr: Attr) {
        match self.judge(Fact::Attr(node)) {
            Verdict::Keep if node.is_own() => self.space.attrs.insert(node, attr),
            Verdict::Keep | Verdict::Forget => drop(self.space.attrs.remove(&node)),
            Verdict::Ignore => {}
        }
    }

    /// `name` in `parent` leads to `target`, or nowhere.
    pub(crate) fn entry(&self, parent: NodeId, name: &Name, target: Option<NodeId>) {
        let key = (parent, name.clone());
        let own = parent.is_own() && target.is_none_or(NodeId::is_own);
        match self.judge(Fact::Entry(parent, name)) {
            Verdict::Keep if own => self.space.entries.insert(key, target),
            Verdict::Keep | Verdict::Forget => drop(self.space.entries.remove(&key)),
            Verdict::Ignore => {}
        }
    }

    /// The listing of `dir` is no longer what it was.
    pub(crate) fn listing_changed(&self, dir: NodeId) {
        self.history.borrow_mut().note(Fact::Listing(dir));
        self.space.pages.lock().retain(|page| page.dir != dir);
    }

    /// Nothing is known of `name` in `parent`, nor of the attributes and the listing of `parent`.
    pub(crate) fn entry_unknown(&self, parent: NodeId, name: &Name) {
        self.history.borrow_mut().note(Fact::Entry(parent, name));
        self.space.entries.remove(&(parent, name.clone()));
        self.history.borrow_mut().note(Fact::Attr(parent));
        self.space.attrs.remove(&parent);
        self.listing_changed(parent);
    }

    /// Nothing is known of the attributes of `node`.
    pub(crate) fn attr_unknown(&self, node: NodeId) {
        self.history.borrow_mut().note(Fact::Attr(node));
        self.space.attrs.remove(&node);
        self.xattrs_changed(node);
    }

    /// The extended attributes of `node` have changed.
    pub(crate) fn xattrs_changed(&self, node: NodeId) {
        self.history.borrow_mut().note(Fact::Xattrs(node));
        self.space.xattrs.remove(&node);
        self.space.bare.remove(&node);
    }

    /// `node`, of another tenant, has no extended attributes.
    pub(crate) fn bare(&self, node: NodeId) {
        if !node.is_own() && self.judge(Fact::Xattrs(node)) == Verdict::Keep {
            self.space.bare.insert(node, ());
        }
    }

    /// The symbolic link `node` has this target, for ever.
    pub(crate) fn target(&self, node: NodeId, target: &[u8]) {
        if node.is_own() {
            self.space.targets.insert(node, target.into());
        }
    }

    /// `node` has, or has not, the extended attribute `name`.
    pub(crate) fn xattr(&self, node: NodeId, name: &[u8], value: Option<&[u8]>) {
        let small = value.is_none_or(|value| value.len() <= XATTR_CACHED_MAX);
        if !node.is_own() || !small || self.judge(Fact::Xattrs(node)) != Verdict::Keep {
            return;
        }
        let mut names =
            self.space.xattrs.get(&node).map(|names| XattrNames::clone(&names)).unwrap_or_default();
        names.retain(|(known, _)| **known != *name);
        names.truncate(XATTRS_PER_NODE - 1);
        names.push((name.into(), value.map(Arc::from)));
        self.space.xattrs.insert(node, Arc::new(names));
    }

    /// A page of a directory, with the attributes of all its entries.
    pub(crate) fn page(&self, page: &Arc<Page>) {
        if !page.dir.is_own() {
            return;
        }
        for entry in &page.entries {
            self.attr(entry.node.node, entry.node.attr);
            self.entry(page.dir, &entry.name, Some(entry.node.node));
        }
        if self.judge(Fact::Listing(page.dir)) != Verdict::Keep {
            return;
        }
        let mut pages = self.space.pages.lock();
        pages.retain(|known| known.dir != page.dir || known.after != page.after);
        if pages.len() >= self.space.pages_max {
            pages.pop_front();
        }
        pages.push_back(Arc::clone(page));
    }
}

#[cfg(test)]
mod tests;

//! What this process knows of the tenant's own tree, so that most questions of the kernel need no round trip.
//!
//! The controller pushes every change made by others, and the answers to own changes carry the attributes as they
//! are afterwards; so what is here is true. Every question to the controller takes a [`Stamp`] when it is asked,
//! and its answer is kept only if nothing has changed since. Trees of other tenants are never cached: each
//! question about them is decided by the controller at the time it is asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use address_map::attr::Attr;
use address_map::ids::NodeId;
use address_map::name::Name;
use address_map::wire::ListEntry;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

/// Most pages of directory listings kept.
const PAGES_MAX: usize = 64;
/// Most attribute names (present or absent) remembered of one inode.
const XATTRS_PER_NODE: usize = 8;
/// Largest value of an extended attribute that is kept, in bytes.
const XATTR_CACHED_MAX: usize = 512;
/// Symlink targets and xattrs are kept for one of this many cached inodes.
const RARE: usize = 8;

/// The state of knowledge when a question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

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
    version: AtomicU64,
    /// Held by whoever changes the cache, so that checking a stamp and acting on it are one step.
    writing: Mutex<()>,
    attrs: Cache<NodeId, Attr>,
    entries: Cache<(NodeId, Name), Option<NodeId>>,
    targets: Cache<NodeId, Arc<[u8]>>,
    xattrs: Cache<NodeId, Arc<XattrNames>>,
    pages: Mutex<VecDeque<Arc<Page>>>,
}

impl Namespace {
    /// An empty cache of at most `capacity` attributes and as many entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            version: AtomicU64::new(0),
            writing: Mutex::new(()),
            attrs: Cache::new(capacity),
            entries: Cache::new(capacity),
            targets: Cache::new(capacity / RARE),
            xattrs: Cache::new(capacity / RARE),
            pages: Mutex::default(),
        }
    }

    /// To be taken before a question is sent.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp(self.version.load(Ordering::Acquire))
    }

    /// Whether nothing has changed since `stamp`.
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

    /// A page that tells what comes after `offset` in a directory.
    pub(crate) fn page(&self, dir: NodeId, offset: u64) -> Option<Arc<Page>> {
        let mut pages = self.pages.lock();
        let found = pages.iter().position(|page| page.dir == dir && page.position(offset).is_some())?;
        let page = pages.remove(found)?;
        pages.push_back(Arc::clone(&page));
        Some(page)
    }

    /// All inodes with cached attributes.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.attrs.iter().map(|(node, _)| node).collect()
    }

    /// Records the answer to a question asked at `stamp`, unless something has changed since. Tells whether it was
    /// recorded: if not, the answer may be used once but not kept, by the kernel neither.
    pub(crate) fn learn(&self, stamp: Stamp, record: impl FnOnce(&Facts<'_>)) -> bool {
        let _writing = self.writing.lock();
        let current = self.is_current(stamp);
        if current {
            record(&Facts { space: self, trusted: true });
        }
        current
    }

    /// Records the answer to a change asked for at `stamp`. If another change was answered in between, the order of
    /// the two is unknown, and what they touched is forgotten instead. Tells whether it was recorded.
    pub(crate) fn change(&self, stamp: Stamp, record: impl FnOnce(&Facts<'_>)) -> bool {
        let _writing = self.writing.lock();
        let trusted = self.is_current(stamp);
        self.version.fetch_add(1, Ordering::AcqRel);
        record(&Facts { space: self, trusted });
        trusted
    }

    /// Forgets what `record` names, because somebody else has changed it.
    pub(crate) fn forget(&self, record: impl FnOnce(&Facts<'_>)) {
        let _writing = self.writing.lock();
        self.version.fetch_add(1, Ordering::AcqRel);
        record(&Facts { space: self, trusted: false });
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) {
        let _writing = self.writing.lock();
        self.version.fetch_add(1, Ordering::AcqRel);
        self.attrs.clear();
        self.entries.clear();
        self.targets.clear();
        self.xattrs.clear();
        self.pages.lock().clear();
    }

    /// Frees memory of an inode that the kernel no longer remembers. What is known of it stays true.
    pub(crate) fn let_go(&self, node: NodeId) {
        self.attrs.remove(&node);
        self.targets.remove(&node);
        self.xattrs.remove(&node);
    }
}

/// Writes to the cache; handed out while the cache may be written.
pub(crate) struct Facts<'a> {
    space: &'a Namespace,
    trusted: bool,
}

impl Facts<'_> {
    /// The attributes of `node` are `attr`.
    pub(crate) fn attr(&self, node: NodeId, attr: Attr) {
        if self.trusted && node.is_own() {
            self.space.attrs.insert(node, attr);
        } else {
            self.space.attrs.remove(&node);
        }
    }

    /// `name` in `parent` leads to `target`, or nowhere.
    pub(crate) fn entry(&self, parent: NodeId, name: &Name, target: Option<NodeId>) {
        let key = (parent, name.clone());
        if self.trusted && parent.is_own() && target.is_none_or(NodeId::is_own) {
            self.space.entries.insert(key, target);
        } else {
            self.space.entries.remove(&key);
        }
    }

    /// The listing of `dir` is no longer what it was.
    pub(crate) fn listing_changed(&self, dir: NodeId) {
        self.space.pages.lock().retain(|page| page.dir != dir);
    }

    /// Nothing is known of `name` in `parent`, nor of the attributes and the listing of `parent`.
    pub(crate) fn entry_unknown(&self, parent: NodeId, name: &Name) {
        self.space.entries.remove(&(parent, name.clone()));
        self.space.attrs.remove(&parent);
        self.listing_changed(parent);
    }

    /// Nothing is known of the attributes of `node`.
    pub(crate) fn attr_unknown(&self, node: NodeId) {
        self.space.attrs.remove(&node);
        self.space.xattrs.remove(&node);
    }

    /// The extended attributes of `node` have changed.
    pub(crate) fn xattrs_changed(&self, node: NodeId) {
        self.space.xattrs.remove(&node);
    }

    /// The symbolic link `node` has this target, for ever.
    pub(crate) fn target(&self, node: NodeId, target: &[u8]) {
        if node.is_own() {
            self.space.targets.insert(node, target.into());
        }
    }

    /// `node` has, or has not, the extended attribute `name`.
    pub(crate) fn xattr(&self, node: NodeId, name: &[u8], value: Option<&[u8]>) {
        if !node.is_own() || value.is_some_and(|value| value.len() > XATTR_CACHED_MAX) {
            return;
        }
        let mut names = self.space.xattrs.get(&node).map(|names| XattrNames::clone(&names)).unwrap_or_default();
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
        let mut pages = self.space.pages.lock();
        pages.retain(|known| known.dir != page.dir || known.after != page.after);
        if pages.len() >= PAGES_MAX {
            pages.pop_front();
        }
        pages.push_back(Arc::clone(page));
    }
}

#[cfg(test)]
mod tests {
    use address_map::ids::{Ino, Slot};
    use address_map::wire::NodeAttr;

    use super::*;
    use crate::testing::{file_attr, name};

    const DIR: NodeId = NodeId::ROOT;

    fn node(ino: u64) -> NodeId {
        NodeId::new(Slot::OWN, Ino(ino))
    }

    fn page(after: u64, cookies: &[u64], end: bool, stamp: Stamp) -> Arc<Page> {
        let entry = |&cookie: &u64| ListEntry {
            cookie,
            name: name(&format!("n{cookie}")),
            node: NodeAttr { node: node(cookie), attr: file_attr(1) },
        };
        Arc::new(Page { dir: DIR, after, entries: cookies.iter().map(entry).collect(), end, stamp })
    }

    #[test]
    fn an_answer_asked_for_before_a_change_is_not_kept() {
        let space = Namespace::new(64);
        let stamp = space.stamp();
        space.forget(|facts| facts.attr_unknown(node(7)));
        assert!(!space.learn(stamp, |facts| facts.attr(node(7), file_attr(1))));
        assert_eq!(space.attr(node(7)), None);
        assert!(space.learn(space.stamp(), |facts| facts.attr(node(7), file_attr(2))));
        assert_eq!(space.attr(node(7)).unwrap().size, 2);
    }

    #[test]
    fn of_two_overlapping_changes_neither_is_believed_to_be_the_last() {
        let space = Namespace::new(64);
        let (first, second) = (space.stamp(), space.stamp());
        space.change(second, |facts| facts.attr(DIR, file_attr(2)));
        assert_eq!(space.attr(DIR).unwrap().size, 2);
        space.change(first, |facts| facts.attr(DIR, file_attr(1)));
        assert_eq!(space.attr(DIR), None);
    }

    #[test]
    fn trees_of_others_are_not_cached() {
        let space = Namespace::new(64);
        let foreign = NodeId::new(Slot(3), Ino(1));
        space.learn(space.stamp(), |facts| {
            facts.attr(foreign, file_attr(1));
            facts.entry(DIR, &name("share"), Some(foreign));
            facts.entry(foreign, &name("absent"), None);
            facts.xattr(foreign, b"user.a", None);
        });
        assert_eq!(space.attr(foreign), None);
        assert_eq!(space.entry(DIR, &name("share")), None);
        assert_eq!(space.entry(foreign, &name("absent")), None);
        assert_eq!(space.xattr(foreign, b"user.a"), None);
    }

    #[test]
    fn pages_answer_any_offset_within_them() {
        let space = Namespace::new(64);
        let stamp = space.stamp();
        space.learn(stamp, |facts| facts.page(&page(0, &[3, 5, 9], false, stamp)));
        assert_eq!(space.page(DIR, 0).unwrap().position(0), Some(0));
        assert_eq!(space.page(DIR, 4).unwrap().position(4), Some(1));
        assert!(space.page(DIR, 9).is_none(), "what follows the last entry is unknown");
        space.learn(stamp, |facts| facts.page(&page(9, &[12], true, stamp)));
        assert_eq!(space.page(DIR, 12).unwrap().position(12), Some(1), "nothing follows");
        assert_eq!(space.attr(node(5)).unwrap().size, 1);
        space.forget(|facts| facts.entry_unknown(DIR, &name("n5")));
        assert!(space.page(DIR, 0).is_none() && space.page(DIR, 9).is_none());
        assert_eq!(space.entry(DIR, &name("n3")), Some(Some(node(3))));
        assert_eq!(space.entry(DIR, &name("n5")), None);
    }

    #[test]
    fn caches_are_bounded() {
        let space = Namespace::new(100);
        let stamp = space.stamp();
        space.learn(stamp, |facts| {
            for ino in 2..2_000 {
                facts.attr(node(ino), file_attr(1));
                facts.entry(DIR, &name(&ino.to_string()), Some(node(ino)));
                facts.page(&page(ino, &[], true, stamp));
                facts.xattr(node(2), ino.to_string().as_bytes(), None);
            }
        });
        assert!(space.attrs.len() <= 200, "{}", space.attrs.len());
        assert!(space.entries.len() <= 200, "{}", space.entries.len());
        assert_eq!(space.pages.lock().len(), PAGES_MAX);
        assert_eq!(space.xattrs.get(&node(2)).unwrap().len(), XATTRS_PER_NODE);
    }

    #[test]
    fn a_large_value_is_not_kept_and_a_change_forgets_all() {
        let space = Namespace::new(64);
        space.learn(space.stamp(), |facts| {
            facts.xattr(node(2), b"user.large", Some(&[0; XATTR_CACHED_MAX + 1]));
            facts.xattr(node(2), b"user.small", Some(b"v"));
            facts.xattr(node(2), b"user.none", None);
        });
        assert_eq!(space.xattr(node(2), b"user.large"), None);
        assert_eq!(space.xattr(node(2), b"user.small").flatten().as_deref(), Some(&b"v"[..]));
        assert_eq!(space.xattr(node(2), b"user.none"), Some(None));
        space.change(space.stamp(), |facts| facts.xattrs_changed(node(2)));
        assert_eq!(space.xattr(node(2), b"user.small"), None);
    }
}

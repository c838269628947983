//! What is kept, and what is not.

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
    assert_eq!(space.pages.lock().len(), space.pages_max);
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

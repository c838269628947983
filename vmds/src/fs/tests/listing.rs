//! Listings begin and go on where they are asked to.

use std::time::Duration;

use address_map::wire::{ListEntry, Stale, ToVmds};

use super::*;

fn entry(cookie: u64, attr: Attr) -> ListEntry {
    ListEntry { cookie, name: name(&format!("n{cookie}")), node: with_node(node(cookie), attr) }
}

fn list(fs: &Arc<Fs>, dir: NodeId, offset: u64, plus: bool) -> Receiver<Result<Listing, Errno>> {
    start(|done| fs.list(dir, offset, plus, done))
}

fn names(listing: &Listing) -> Vec<String> {
    listing.entries().map(|listed| String::from_utf8(listed.name.to_vec()).unwrap()).collect()
}

#[test]
fn offsets_are_positions_after_entries() {
    let (fs, controller) = setup();
    let result = list(&fs, ROOT, 0, false);
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::List { node: ROOT, after: 0 });
    controller.answer(
        id,
        Answer::Page { entries: vec![entry(4, file_attr(1)), entry(9, file_attr(2))], end: false },
    );
    assert_eq!(names(&result.recv().unwrap().unwrap()), [".", "..", "n4", "n9"]);

    for (offset, expected) in [
        (0, vec![".", "..", "n4", "n9"]),
        (1, vec!["..", "n4", "n9"]),
        (2, vec!["n4", "n9"]),
        (4, vec!["n9"]),
    ] {
        assert_eq!(names(&at_once(&list(&fs, ROOT, offset, true)).unwrap()), expected, "{offset}");
    }
    let result = list(&fs, ROOT, 9, false);
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::List { node: ROOT, after: 9 });
    controller.answer(id, Answer::Page { entries: vec![], end: false });
    assert!(names(&result.recv().unwrap().unwrap()).is_empty());
    assert!(names(&at_once(&list(&fs, ROOT, 9, false)).unwrap()).is_empty());
    // Names and attributes have been learnt on the way.
    assert_eq!(at_once(&getattr(&fs, node(9))).unwrap().attr.size, 2);
    assert!(matches!(at_once(&lookup(&fs, ROOT, "n4")), Ok(Looked::Found(_))));
}

#[test]
fn attributes_in_listings_are_true_or_not_shown() {
    let (fs, controller) = setup();
    let volatile = Attr { volatile: true, ..file_attr(7) };
    let page = |entries| Answer::Page { entries, end: true };
    let result = list(&fs, ROOT, 2, true);
    let (id, _) = controller.next_call();
    controller.answer(id, page(vec![entry(4, file_attr(1)), entry(5, file_attr(1)), entry(6, volatile)]));
    let listing = result.recv().unwrap().unwrap();
    let shown: Vec<_> =
        listing.entries().map(|listed| listing.show(listed.entry.unwrap()).unwrap()).collect();
    assert_eq!(shown[0].entry_ttl, Duration::from_secs(60));
    assert_eq!((shown[2].attr.size, shown[2].entry_ttl), (7, Duration::ZERO), "true now, not later");

    // From memory, what is being written is not shown, and the rest has to be asked for again.
    let listing = at_once(&list(&fs, ROOT, 2, true)).unwrap();
    let shown = |listing: &Listing| {
        listing.entries().map(|listed| listing.show(listed.entry.unwrap()).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&listing), [true, true, false]);
    controller.say(&ToVmds::Stale { fence: 1, items: vec![Stale::Inode { node: node(5), data: false }] });
    controller.settle(&fs);
    let listing = at_once(&list(&fs, ROOT, 2, true)).unwrap();
    assert_eq!(shown(&listing), [true, false, false]);
    let result = list(&fs, ROOT, 4, true);
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::List { node: ROOT, after: 4 });
    controller.answer(id, page(vec![entry(5, file_attr(3)), entry(6, volatile)]));
    assert_eq!(shown(&result.recv().unwrap().unwrap()), [true, true]);
    // Names alone are still known.
    assert_eq!(names(&at_once(&list(&fs, ROOT, 2, false)).unwrap()), ["n4", "n5", "n6"]);
}

#[test]
fn a_change_in_a_directory_drops_its_pages() {
    let (fs, controller) = setup();
    let result = list(&fs, ROOT, 0, false);
    let (id, _) = controller.next_call();
    controller.answer(id, Answer::Page { entries: vec![entry(4, file_attr(1))], end: true });
    result.recv().unwrap().unwrap();
    let removed = start(|done| fs.unlink(REQUEST, ROOT, b"n4", done));
    let (id, _) = controller.next_call();
    let target = with_node(node(4), Attr { nlink: 0, ..file_attr(1) });
    controller.answer(id, Answer::Removed { target, parent: dir_attr() });
    removed.recv().unwrap().unwrap();
    let _list = list(&fs, ROOT, 0, false);
    assert!(matches!(controller.next_call().1, Call::List { after: 0, .. }));
}

#[test]
fn directories_of_others_are_listed_anew_each_time() {
    let (fs, controller) = setup();
    for _ in 0..2 {
        let result = list(&fs, foreign(1), 0, true);
        let (id, _) = controller.next_call();
        let mut listed = entry(4, file_attr(1));
        listed.node.node = foreign(4);
        controller.answer(id, Answer::Page { entries: vec![listed.clone()], end: true });
        let listing = result.recv().unwrap().unwrap();
        assert_eq!(listing.show(&listed).unwrap().entry_ttl, Duration::ZERO);
    }
}

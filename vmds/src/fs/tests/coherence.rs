//! What is answered from memory is true.

use std::time::Duration;

use address_map::wire::{RenameMode, Stale, ToController, ToVmds};

use super::*;

#[test]
fn a_name_is_asked_for_once() {
    let (fs, controller) = setup();
    know(&fs, &controller, "a", with_node(node(7), file_attr(5)));
    let Looked::Found(shown) = at_once(&lookup(&fs, ROOT, "a")).unwrap() else { panic!() };
    assert_eq!((shown.node, shown.attr.size), (node(7), 5));
    assert_eq!(shown.entry_ttl, Duration::from_secs(60));
    assert_eq!(at_once(&getattr(&fs, node(7))).unwrap().attr.size, 5);
    assert!(controller.is_quiet());
}

#[test]
fn a_missing_name_is_remembered_until_it_is_made() {
    let (fs, controller) = setup();
    let result = lookup(&fs, ROOT, "a");
    let (id, _) = controller.next_call();
    controller.refuse(id, Refusal::NotFound);
    assert_eq!(result.recv().unwrap().unwrap(), Looked::Absent { ttl: Duration::from_secs(60) });
    assert!(matches!(at_once(&lookup(&fs, ROOT, "a")), Ok(Looked::Absent { .. })));

    let caller = address_map::attr::Caller { uid: 1, gid: 2 };
    let made = start(|done| {
        fs.make(
            REQUEST,
            ROOT,
            b"a",
            caller,
            NewMode::exactly(0o755),
            address_map::wire::Make::Directory,
            done,
        )
    });
    let (id, _) = controller.next_call();
    let target = with_node(node(9), dir_attr());
    controller.answer(id, Answer::Made { target, parent: Attr { nlink: 3, ..dir_attr() } });
    assert_eq!(made.recv().unwrap().unwrap().node, node(9));
    assert!(matches!(at_once(&lookup(&fs, ROOT, "a")), Ok(Looked::Found(_))));
    assert_eq!(at_once(&getattr(&fs, ROOT)).unwrap().attr.nlink, 3);
}

#[test]
fn an_answer_from_before_an_invalidation_is_used_once_and_not_kept() {
    let (fs, controller) = setup();
    let result = lookup(&fs, ROOT, "a");
    let (id, _) = controller.next_call();
    let items = vec![Stale::Entry { parent: ROOT, name: name("a") }];
    controller.say(&ToVmds::Stale { fence: 4, items });
    controller.answer(id, Answer::Found(with_node(node(7), file_attr(5))));
    let Looked::Found(shown) = result.recv().unwrap().unwrap() else { panic!() };
    assert_eq!((shown.entry_ttl, shown.attr_ttl), (Duration::ZERO, Duration::ZERO));
    let _again = lookup(&fs, ROOT, "a");
    assert!(matches!(controller.next_call().1, Call::Lookup { .. }));
}

#[test]
fn an_invalidation_of_something_else_costs_nothing() {
    let (fs, controller) = setup();
    let result = lookup(&fs, ROOT, "a");
    let (id, _) = controller.next_call();
    // Nothing of a foreign directory is kept by the kernel either, so this is answered at once.
    let items = vec![Stale::Entry { parent: foreign(1), name: name("x") }];
    controller.say(&ToVmds::Stale { fence: 4, items });
    assert_eq!(controller.next(), ToController::Forgotten { fence: 4 });
    controller.answer(id, Answer::Found(with_node(node(7), file_attr(5))));
    result.recv().unwrap().unwrap();
    assert!(matches!(at_once(&lookup(&fs, ROOT, "a")), Ok(Looked::Found(_))));
}

#[test]
fn that_a_foreign_inode_has_no_access_list_is_known_until_it_changes() {
    const LIST: &[u8] = b"system.posix_acl_access";
    let (fs, controller) = setup();
    let get = || start(|done| fs.getxattr(foreign(7), LIST, 20, done));
    // The kernel asks for the list right after the attributes.
    let show = |attr: Attr| {
        let result = getattr(&fs, foreign(7));
        let (id, _) = controller.next_call();
        controller.answer(id, Answer::Attr(attr));
        assert!(result.recv().unwrap().is_ok());
    };
    let asks = || {
        let result = get();
        let (id, _) = controller.next_call();
        controller.answer(id, Answer::Bytes(b"list".to_vec()));
        assert!(result.recv().unwrap().is_ok());
    };
    let forget = |fence, item| {
        controller.say(&ToVmds::Stale { fence, items: vec![item] });
        assert_eq!(controller.next(), ToController::Forgotten { fence });
    };
    for (fence, item) in [(4, Stale::Inode { node: foreign(7), data: false }), (5, Stale::Slot(Slot(3)))] {
        asks();
        show(Attr { has_xattrs: true, ..file_attr(5) });
        asks();
        show(file_attr(5));
        assert_eq!(at_once(&get()).unwrap_err().code(), libc::ENODATA);
        forget(fence, item);
    }
    asks();
}

#[test]
fn a_changed_name_is_asked_for_again() {
    let (fs, controller) = setup();
    know(&fs, &controller, "a", with_node(node(7), file_attr(5)));
    know(&fs, &controller, "b", with_node(node(8), file_attr(5)));
    controller.say(&ToVmds::Stale {
        fence: 1,
        items: vec![
            Stale::Entry { parent: ROOT, name: name("a") },
            Stale::Inode { node: node(8), data: false },
        ],
    });
    controller.settle(&fs);
    let _lookup = lookup(&fs, ROOT, "a");
    assert!(matches!(controller.next_call().1, Call::Lookup { .. }));
    let _getattr = getattr(&fs, node(8));
    assert!(matches!(controller.next_call().1, Call::Getattr { .. }));
}

#[test]
fn nothing_of_other_tenants_is_kept() {
    let (fs, controller) = setup();
    for _ in 0..2 {
        let result = lookup(&fs, ROOT, "share");
        let (id, _) = controller.next_call();
        controller.answer(id, Answer::Found(with_node(foreign(1), dir_attr())));
        let Looked::Found(shown) = result.recv().unwrap().unwrap() else { panic!() };
        assert_eq!((shown.entry_ttl, shown.attr_ttl), (Duration::ZERO, Duration::ZERO));
        let result = lookup(&fs, foreign(1), "absent");
        let (id, _) = controller.next_call();
        controller.refuse(id, Refusal::NotFound);
        assert_eq!(result.recv().unwrap().unwrap_err(), Refusal::NotFound.into());
    }
    let rename =
        start(|done| fs.rename(REQUEST, (ROOT, b"a"), (foreign(1), b"a"), RenameMode::Replace, done));
    assert_eq!(at_once(&rename).unwrap_err().code(), libc::EXDEV);
    let link = start(|done| fs.link(REQUEST, node(5), foreign(1), b"a", done));
    assert_eq!(at_once(&link).unwrap_err().code(), libc::EXDEV);
}

#[test]
fn a_rename_moves_what_is_known() {
    let (fs, controller) = setup();
    let moved = with_node(node(7), file_attr(5));
    know(&fs, &controller, "a", moved);
    let result = start(|done| fs.rename(REQUEST, (ROOT, b"a"), (ROOT, b"b"), RenameMode::Replace, done));
    let (id, _) = controller.next_call();
    let parents = (dir_attr(), dir_attr());
    controller.answer(id, Answer::Renamed { moved, other: None, parent: parents.0, new_parent: parents.1 });
    result.recv().unwrap().unwrap();
    assert!(matches!(at_once(&lookup(&fs, ROOT, "a")), Ok(Looked::Absent { .. })));
    let Looked::Found(shown) = at_once(&lookup(&fs, ROOT, "b")).unwrap() else { panic!() };
    assert_eq!(shown.node, node(7));

    let other = with_node(node(8), file_attr(6));
    know(&fs, &controller, "c", other);
    let result = start(|done| fs.rename(REQUEST, (ROOT, b"b"), (ROOT, b"c"), RenameMode::Exchange, done));
    let (id, _) = controller.next_call();
    controller.answer(
        id,
        Answer::Renamed { moved, other: Some(other), parent: dir_attr(), new_parent: dir_attr() },
    );
    result.recv().unwrap().unwrap();
    for (text, expected) in [("b", node(8)), ("c", node(7))] {
        let Looked::Found(shown) = at_once(&lookup(&fs, ROOT, text)).unwrap() else { panic!() };
        assert_eq!(shown.node, expected);
    }
}

#[test]
fn a_refused_change_leaves_nothing_believed() {
    let (fs, controller) = setup();
    know(&fs, &controller, "a", with_node(node(7), file_attr(5)));
    let result = start(|done| fs.unlink(REQUEST, ROOT, b"a", done));
    let (id, _) = controller.next_call();
    controller.refuse(id, Refusal::Io);
    assert_eq!(result.recv().unwrap().unwrap_err().code(), libc::EIO);
    let _lookup = lookup(&fs, ROOT, "a");
    assert!(matches!(controller.next_call().1, Call::Lookup { .. }));
}

#[test]
fn bad_names_do_not_leave_the_process() {
    let (fs, controller) = setup();
    assert_eq!(at_once(&lookup(&fs, ROOT, &"x".repeat(256))).unwrap_err().code(), libc::ENAMETOOLONG);
    let unlink = start(|done| fs.unlink(REQUEST, ROOT, b"..", done));
    assert_eq!(at_once(&unlink).unwrap_err().code(), libc::EINVAL);
    assert!(controller.is_quiet());
}

#[test]
fn attributes_that_are_not_there_need_no_round_trip() {
    let (fs, controller) = setup();
    know(&fs, &controller, "a", with_node(node(7), file_attr(5)));
    know(&fs, &controller, "b", with_node(node(8), Attr { has_xattrs: true, ..file_attr(5) }));
    let get = |of, name: &'static [u8], room| start(|done| fs.getxattr(of, name, room, done));
    let code = |result: Result<AttrBytes, Errno>| result.unwrap_err().code();
    assert_eq!(code(at_once(&get(node(7), b"security.capability", 20))), libc::ENODATA);
    assert_eq!(code(at_once(&get(foreign(7), b"security.capability", 20))), libc::ENODATA);
    assert_eq!(code(at_once(&get(node(7), b"system.posix_acl_access", 20))), libc::ENODATA);

    let result = get(node(8), b"user.a", 20);
    let (id, _) = controller.next_call();
    controller.answer(id, Answer::Bytes(b"value".to_vec()));
    assert_eq!(result.recv().unwrap().unwrap(), AttrBytes::Bytes(b"value".as_slice().into()));
    assert_eq!(at_once(&get(node(8), b"user.a", 0)).unwrap(), AttrBytes::Size(5));
    assert_eq!(code(at_once(&get(node(8), b"user.a", 4))), libc::ERANGE);

    let result = get(node(8), b"security.capability", 20);
    let (id, _) = controller.next_call();
    controller.refuse(id, Refusal::NoAttribute);
    assert_eq!(code(result.recv().unwrap()), libc::ENODATA);
    assert_eq!(code(at_once(&get(node(8), b"security.capability", 20))), libc::ENODATA);
}

//! Access control lists in a tree: what is refused, what is inherited, and that a check finds what does not fit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail right there")]

use std::sync::Arc;

use address_map::acl::{ACCESS, DEFAULT};
use address_map::attr::{AttrChange, Caller, NewMode};
use address_map::check::check;
use address_map::clock::ManualClock;
use address_map::engine::MemoryEngine;
use address_map::error::Refusal;
use address_map::ids::{Ino, PoolId, ShardId, TenantId};
use address_map::map::{AddressMap, Tree};
use address_map::name::Name;
use address_map::namespace::tenant::NewTenant;
use address_map::namespace::{attr, create, lookup, tenant, xattr};
use address_map::record::Quota;
use address_map::shard::{Records, Shard};
use address_map::wire::{Make, XattrMode};
use address_map::{MapError, key};

const ROOT: Caller = Caller { uid: 0, gid: 0 };
const NOBODY: u32 = u32::MAX;

fn encoded(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The owner has 7, user 1000 and the group what is given, others nothing; the mask allows it all.
fn list(user: u16, group: u16) -> Vec<u8> {
    encoded(&[
        (1, 7, NOBODY),
        (2, user, 1000),
        (4, group, NOBODY),
        (0x10, user | group, NOBODY),
        (0x20, 0, NOBODY),
    ])
}

fn tree() -> Tree {
    let shard = Arc::new(Shard::new(ShardId(0), Arc::new(MemoryEngine::new()), 64));
    let map = AddressMap::new(vec![shard], Arc::new(ManualClock::default()));
    let tree = map.route(TenantId(1), ShardId(0)).unwrap();
    let new =
        NewTenant { pool: PoolId(1), quota: Quota::default(), uid: 0, gid: 0, mode: 0o755, name_key: 1 };
    tree.write(|txn| tenant::ensure(txn, &new)).unwrap();
    tree
}

fn make(tree: &Tree, parent: Ino, name: &str, mode: u32, what: &Make) -> Ino {
    let name = Name::new(name.as_bytes()).unwrap();
    let mode = NewMode { mode, umask: 0o077 };
    tree.write(|txn| create::create(txn, parent, &name, ROOT, mode, what, false)).unwrap().ino
}

fn set(tree: &Tree, ino: Ino, caller: Caller, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let set = tree.write(|txn| xattr::set(txn, ino, caller, name, value, XattrMode::Set).map(drop));
    set.map_err(|error: MapError| error.refusal())
}

fn get(tree: &Tree, ino: Ino, name: &[u8]) -> Option<Vec<u8>> {
    xattr::get(&tree.view(), ino, name).ok()
}

fn mode(tree: &Tree, ino: Ino) -> u32 {
    lookup::inode(&tree.view(), ino).unwrap().mode
}

fn problems(tree: &Tree) -> Vec<String> {
    check(&tree.view()).unwrap().problems
}

#[test]
fn a_list_that_is_none_changes_nothing() {
    let tree = tree();
    let file = make(&tree, Ino::ROOT, "file", 0o644, &Make::File);
    set(&tree, file, ROOT, ACCESS, &list(6, 4)).unwrap();
    let before = (get(&tree, file, ACCESS), mode(&tree, file));
    let good = list(7, 7);
    for bad in [&good[..3], &good[..good.len() - 1], &good[..good.len() - 8], &[9; 4096]] {
        assert_eq!(set(&tree, file, ROOT, ACCESS, bad), Err(Refusal::Invalid));
    }
    assert_eq!(set(&tree, file, ROOT, ACCESS, &[2; 4100]), Err(Refusal::AttributeTooLarge));
    assert_eq!(set(&tree, file, ROOT, DEFAULT, &good), Err(Refusal::Access), "not a directory");
    let link = make(&tree, Ino::ROOT, "link", 0o777, &Make::Symlink(b"file".to_vec()));
    assert_eq!(set(&tree, link, ROOT, ACCESS, &good), Err(Refusal::NotSupported));
    assert_eq!((get(&tree, file, ACCESS), mode(&tree, file)), before);
    assert_eq!(problems(&tree), [""; 0]);
}

#[test]
fn lists_follow_permission_bits_and_go_with_their_inode() {
    let tree = tree();
    let file = make(&tree, Ino::ROOT, "file", 0o644, &Make::File);
    set(&tree, file, ROOT, ACCESS, &list(6, 4)).unwrap();
    assert_eq!(mode(&tree, file), 0o760);
    let chmod = |mode| {
        let change = AttrChange { mode: Some(mode), ..AttrChange::default() };
        tree.write(|txn| attr::setattr(txn, file, &change)).unwrap();
    };
    chmod(0o2610);
    assert_eq!(get(&tree, file, ACCESS).unwrap()[4 + 3 * 8 + 2], 1, "the mask");
    assert_eq!(problems(&tree), [""; 0]);
    // Somebody outside of the group, then root.
    set(&tree, file, Caller { uid: 7, gid: 7 }, ACCESS, &list(6, 4)).unwrap();
    assert_eq!(mode(&tree, file), 0o760);
    chmod(0o2760);
    set(&tree, file, ROOT, ACCESS, &encoded(&[(1, 6, NOBODY), (4, 4, NOBODY), (0x20, 4, NOBODY)])).unwrap();
    assert_eq!((get(&tree, file, ACCESS), mode(&tree, file)), (None, 0o2644));
    assert!(!lookup::inode(&tree.view(), file).unwrap().has_xattrs);
}

#[test]
fn new_inodes_begin_with_the_default_list() {
    let tree = tree();
    let dir = make(&tree, Ino::ROOT, "d", 0o755, &Make::Directory);
    assert_eq!(mode(&tree, dir), 0o700, "the umask");
    set(&tree, dir, ROOT, DEFAULT, &list(7, 5)).unwrap();
    let file = make(&tree, dir, "file", 0o640, &Make::File);
    assert_eq!(mode(&tree, file), 0o640, "no umask");
    assert!(get(&tree, file, ACCESS).is_some() && get(&tree, file, DEFAULT).is_none());
    let sub = make(&tree, dir, "sub", 0o777, &Make::Directory);
    assert_eq!(get(&tree, sub, DEFAULT), Some(list(7, 5)));
    assert_eq!((get(&tree, sub, ACCESS), mode(&tree, sub)), (Some(list(7, 5)), 0o770));
    let link = make(&tree, dir, "link", 0o777, &Make::Symlink(b"x".to_vec()));
    assert_eq!(xattr::list(&tree.view(), link).unwrap(), b"");
    set(&tree, dir, ROOT, DEFAULT, &[]).unwrap();
    assert_eq!(mode(&tree, make(&tree, dir, "later", 0o666, &Make::File)), 0o600);
    assert_eq!(problems(&tree), [""; 0]);
}

#[test]
fn a_check_finds_lists_that_do_not_fit() {
    let tree = tree();
    let file = make(&tree, Ino::ROOT, "file", 0o644, &Make::File);
    let other = make(&tree, Ino::ROOT, "other", 0o644, &Make::File);
    set(&tree, file, ROOT, ACCESS, &list(6, 4)).unwrap();
    let put = |ino, value: Vec<u8>| {
        tree.write(|txn| {
            txn.put(key::xattr(txn.tenant(), ino, ACCESS), &value);
            Ok(())
        })
        .unwrap();
    };
    put(file, list(1, 1));
    put(other, vec![1]);
    put(Ino(77), list(1, 1));
    let found = problems(&tree).join("\n");
    for problem in ["differ", "malformed", "its record says none", "left over"] {
        assert!(found.contains(problem), "{problem}: {found}");
    }
}

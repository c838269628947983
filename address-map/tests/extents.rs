//! Files spread over several objects: whatever is written over whatever, each byte is found where it was put last.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail right there")]

use std::collections::BTreeSet;
use std::sync::Arc;

use address_map::attr::{Caller, NewMode, Timestamp};
use address_map::clock::ManualClock;
use address_map::engine::MemoryEngine;
use address_map::ids::{Ino, PoolId, ShardId, TenantId};
use address_map::map::{AddressMap, Tree};
use address_map::name::Name;
use address_map::namespace::extent::{self, Piece};
use address_map::namespace::{create, lookup, object, remove, tenant};
use address_map::record::{Extent, ObjectRef, Quota};
use address_map::shard::{Records, Shard};
use address_map::wire::Make;
use proptest::prelude::*;

/// Behind every time at which something is to be deleted.
const LATER: Timestamp = Timestamp { sec: i64::MAX, nsec: 0 };

const FILE_MAX: u64 = 300;

#[derive(Clone, Debug)]
enum Op {
    Put { at: u64, length: u64, offset: u64 },
    Truncate(u64),
}

fn file() -> (Tree, Ino) {
    let shard = Arc::new(Shard::new(ShardId(0), Arc::new(MemoryEngine::new()), 64));
    let map = AddressMap::new(vec![shard], Arc::new(ManualClock::default()));
    let tree = map.route(TenantId(1), ShardId(0)).unwrap();
    let new = tenant::NewTenant {
        pool: PoolId(1),
        quota: Quota::default(),
        uid: 0,
        gid: 0,
        mode: 0o755,
        name_key: 1,
    };
    tree.write(|txn| tenant::ensure(txn, &new)).unwrap();
    let name = Name::new(b"file").unwrap();
    let caller = Caller { uid: 0, gid: 0 };
    let made = tree.write(|txn| {
        create::create(txn, Ino::ROOT, &name, caller, NewMode::exactly(0o644), &Make::File, false)
    });
    (tree, made.unwrap().ino)
}

fn object_of(number: usize) -> ObjectRef {
    ObjectRef { pool: PoolId(1), key: format!("object-{number}") }
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..FILE_MAX, 1..100u64, 0..50u64).prop_map(|(at, length, offset)| Op::Put { at, length, offset }),
        1 => (0..FILE_MAX).prop_map(Op::Truncate),
    ]
}

proptest! {
    #[test]
    fn each_byte_is_where_it_was_put_last(history in prop::collection::vec(ops(), 1..40)) {
        let (tree, ino) = file();
        // For each byte of the file: the object it is in, and where there.
        let mut reference: Vec<Option<(usize, u64)>> = vec![None; (FILE_MAX + 100) as usize];
        for (number, op) in history.iter().enumerate() {
            match *op {
                Op::Put { at, length, offset } => {
                    let extent = Extent { object: object_of(number), offset, length };
                    tree.write(|txn| extent::put(txn, ino, Piece { at, extent })).unwrap();
                    for byte in 0..length {
                        reference[(at + byte) as usize] = Some((number, offset + byte));
                    }
                }
                Op::Truncate(size) => {
                    tree.write(|txn| extent::truncate(txn, ino, size)).unwrap();
                    reference[size as usize..].fill(None);
                }
            }
        }
        let mut found: Vec<Option<(ObjectRef, u64)>> = vec![None; reference.len()];
        for Piece { at, extent } in extent::pieces(&tree.view(), ino).unwrap() {
            for byte in 0..extent.length {
                let place = &mut found[(at + byte) as usize];
                prop_assert!(place.is_none(), "two pieces hold byte {}", at + byte);
                *place = Some((extent.object.clone(), extent.offset + byte));
            }
        }
        let expected: Vec<_> = reference.iter().map(|byte| byte.map(|(n, at)| (object_of(n), at))).collect();
        prop_assert_eq!(found, expected);

        // What holds no byte any more is noted as garbage, and nothing else is.
        let used: BTreeSet<_> = reference.iter().flatten().map(|(number, _)| object_of(*number).key).collect();
        let put = history.iter().enumerate().filter(|(_, op)| matches!(op, Op::Put { .. }));
        let unused: BTreeSet<_> = put.map(|(n, _)| object_of(n).key).filter(|key| !used.contains(key)).collect();
        let garbage = object::garbage(&tree.view(), LATER, None, 1000).unwrap().objects;
        let noted: BTreeSet<_> =
            garbage.into_iter().map(|object| object.key).filter(|key| key.starts_with("object-")).collect();
        prop_assert_eq!(noted, unused);
        prop_assert!(address_map::check::check(&tree.view()).unwrap().is_clean());
    }
}

#[test]
fn a_file_that_goes_takes_all_its_objects_along() {
    let (tree, ino) = file();
    for number in 0..3 {
        let extent = Extent { object: object_of(number), offset: 0, length: 10 };
        tree.write(|txn| extent::put(txn, ino, Piece { at: number as u64 * 10, extent })).unwrap();
    }
    assert_eq!(lookup::inode(&tree.view(), ino).unwrap().size, 30);
    assert_eq!(tree.view().tenant_record().unwrap().usage.bytes, 30);
    let name = Name::new(b"file").unwrap();
    tree.write(|txn| remove::unlink(txn, Ino::ROOT, &name, &|_| false)).unwrap();
    // The three, and the one that the file was made with.
    assert_eq!(object::garbage(&tree.view(), LATER, None, 10).unwrap().objects.len(), 4);
    assert_eq!(tree.view().tenant_record().unwrap().usage.bytes, 0);
    assert!(extent::pieces(&tree.view(), ino).unwrap().is_empty());
}

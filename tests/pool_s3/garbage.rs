//! Deleting what is not needed any more: all of it, in the end, whatever fails on the way.

use std::path::Path;
use std::sync::Arc;

use address_map::clock::ManualClock;
use address_map::engine::{Committer, FjallOptions, FjallStore};
use address_map::ids::{PoolId, ShardId, TenantId};
use address_map::map::{AddressMap, Tree};
use address_map::namespace::{object, tenant};
use address_map::record::{ObjectRef, Quota};
use address_map::shard::Shard;
use controller::audit::Audit;
use controller::pool::s3::S3Runtime;
use controller::pool::{ObjectStore, Pools, RemoteUse};
use controller::session::DataPlane;
use controller::sweeper::Turn;
use tests::s3::{Fault, RequestKind, S3Bucket, User};

use crate::{Bench, ID, SECRET};

const POOL: PoolId = PoolId(3);
const TENANT: TenantId = TenantId(1);

/// The part of a controller that deletes, as one process has it.
fn plane(bench: &Bench, state: &Path) -> (Arc<DataPlane>, Tree) {
    let store = FjallStore::open(state, FjallOptions::default()).unwrap();
    let engine = Arc::new(store.engine("shard-0").unwrap());
    let shard = Arc::new(Shard::new(ShardId(0), engine.clone(), 1024));
    let map = AddressMap::new(vec![shard], Arc::new(ManualClock::default()));
    let tree = map.route(TENANT, ShardId(0)).unwrap();
    let (quota, name_key) = (Quota::default(), 1);
    let new = tenant::NewTenant { pool: POOL, quota, uid: 0, gid: 0, mode: 0o755, name_key };
    tree.write(|txn| tenant::ensure(txn, &new)).unwrap();
    let (s3, runtime) = (bench.pool_of(&bench.spec(SECRET)), S3Runtime::start().unwrap());
    runtime.wait_for(s3.probe()).unwrap();
    let pools = Pools::new(RemoteUse::default());
    let staging = s3.staging().to_owned();
    pools.ensure(POOL, staging, "here".to_owned(), Some(ObjectStore { s3, runtime, cache: None })).unwrap();
    (DataPlane::start(map, pools, Committer::new(engine), Audit::none()).unwrap(), tree)
}

/// So many objects that nobody needs, one of which is not there.
fn discard(tree: &Tree, bucket: &S3Bucket, count: u128) -> Vec<ObjectRef> {
    let objects: Vec<_> =
        (1..=count).map(|n| object::stored_address(TENANT, POOL, address_map::ids::Ino(7), n)).collect();
    for object in &objects[1..] {
        bucket.put(&format!("team/{}", object.key), "x");
    }
    let noted = tree.write(|txn| {
        objects.iter().for_each(|noted| object::discard(txn, noted));
        Ok(())
    });
    noted.unwrap();
    objects
}

fn noted(tree: &Tree) -> usize {
    let later = address_map::attr::Timestamp { sec: i64::MAX, nsec: 0 };
    object::garbage(&tree.view(), later, None, usize::MAX).unwrap().objects.len()
}

#[test]
fn what_was_deleted_when_the_controller_died_is_deleted_by_the_next_one_again() {
    let (bench, state) = (Bench::start(), tempfile::tempdir().unwrap());
    let bucket = bench.server.bucket("data");
    let (first, tree) = plane(&bench, state.path());
    discard(&tree, &bucket, 2_500);
    // The first thousand are gone, which is never heard of; of the rest nothing is heard at all.
    let faults = bench.server.faults();
    faults.add(Fault::LoseAnswer.once().on(RequestKind::DeleteObjects));
    let unheard = Fault::Answer { status: 403, code: "AccessDenied" };
    for kind in [RequestKind::DeleteObjects, RequestKind::DeleteObject] {
        faults.add(unheard.clone().always().on(kind));
    }
    first.sweep(&tree, None);
    let left = bucket.keys().len();
    assert!((1..2_499).contains(&left), "{left}");
    assert_eq!(noted(&tree), 2_500);
    drop((first, tree));

    faults.clear();
    bench.server.forget_requests();
    let (_second, tree) = plane(&bench, state.path());
    assert_eq!(noted(&tree), 2_500);
    assert_eq!(_second.sweep(&tree, None), Turn::Done);
    assert_eq!((bucket.keys().len(), noted(&tree)), (0, 0));
    assert_eq!(bench.server.count(RequestKind::DeleteObjects), 3, "a thousand at a time");
}

#[test]
fn what_cannot_be_deleted_stays_noted_and_keeps_nothing_else_from_it() {
    let (bench, state) = (Bench::start(), tempfile::tempdir().unwrap());
    let bucket = bench.server.bucket("data");
    let (plane, tree) = plane(&bench, state.path());
    let objects = discard(&tree, &bucket, 3_500);
    // Everything but the last 400 is somebody else's suddenly.
    let group = objects[0].key.split('.').next().unwrap();
    let last = (3_101..=3_500_u128).map(|n| format!("team/{group}.{n:032x}"));
    let mut user = User::new(ID, SECRET).may_read("data", "team/");
    for key in last {
        user = user.may_write("data", &key);
    }
    bench.server.set_user(user);
    let mut turns = Vec::new();
    let mut from = None;
    while let Turn::Stuck(at) = plane.sweep(&tree, from) {
        turns.push(noted(&tree));
        from = Some(at);
    }
    assert_eq!(turns, [3_500; 3], "nothing of the first three thousand can be deleted");
    assert_eq!((bucket.keys().len(), noted(&tree)), (3_099, 3_100));
    bench.server.set_user(User::new(ID, SECRET).may_write("data", "team/"));
    assert_eq!(plane.sweep(&tree, None), Turn::Done);
    assert_eq!((bucket.keys().len(), noted(&tree)), (0, 0));
}

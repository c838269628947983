//! Bytes of a large object that a writer asks for: brought to the backing file that is, and to no other.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use address_map::attr::Timestamp;
use address_map::namespace::contents::{self, Contents};
use address_map::namespace::object::{self, BackingFacts};
use address_map::record::StoredObject;
use address_map::wire::Near;

use super::*;
use crate::pool::ObjectStore;
use crate::pool::s3::{S3Pool, S3Settings, WHOLE_MAX};
use crate::resource::{CredentialsSpec, S3Spec};

const CAROL: TenantId = TenantId(3);
const STORE: PoolId = PoolId(2);
/// Size of the object, bytes.
const SIZE: u64 = 2 * WHOLE_MAX;

/// A pool in a store that nobody serves: what needs bytes of it fails.
fn add_store(world: &World, dir: &std::path::Path) {
    let keys = dir.join("keys");
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&keys);
    made.unwrap().write_all(b"[default]\naws_access_key_id = A\naws_secret_access_key = B\n").unwrap();
    let spec = S3Spec {
        disk_cache: None,
        bucket: "data".to_owned(),
        prefix: String::new(),
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        region: None,
        path_style: true,
        credentials: CredentialsSpec::File { path: keys, profile: None },
        staging: None,
        ca_file: None,
        lease_seconds: None,
    };
    let settings = S3Settings::new(&spec, dir.join("staging"), Duration::from_secs(1)).unwrap();
    let s3 = S3Pool::open(settings).unwrap();
    let store = ObjectStore { s3, cache: None, runtime: world.plane.pools.runtime().unwrap() };
    let (directory, host) = (store.s3.staging().to_owned(), "here".to_owned());
    world.plane.pools.ensure(STORE, directory, host, Some(store)).unwrap();
    let setup = TenantSetup {
        id: CAROL,
        name: "carol".to_owned(),
        shard: ShardId(0),
        pool: STORE,
        quota: Quota::default(),
        root_uid: 1000,
        root_mode: 0o755,
    };
    world.services.ensure_tenant(&setup).unwrap();
}

/// Makes a file that the map says is in the store.
fn stored_file(world: &World, carol: &Vmds) -> NodeId {
    let node = carol.make(NodeId::ROOT, "large", Make::File).unwrap();
    let stored = StoredObject {
        object: object::stored_address(CAROL, STORE, node.ino(), 7),
        etag: "\"e\"".to_owned(),
        size: SIZE,
    };
    let facts = BackingFacts { size: SIZE, blocks: SIZE / 512, mtime: Timestamp::new(1, 0) };
    let tree = world.plane.map.tree(CAROL).unwrap();
    let contents = Contents::Stored(stored, Vec::new());
    tree.write(|txn| contents::put(txn, node.ino(), &facts, contents, false)).unwrap();
    node
}

fn lease(carol: &Vmds, node: NodeId) -> Near {
    match carol.call(Call::Lease { node, write: true, fill: true }) {
        Ok(Answer::Leased { lease, .. }) => lease.near.expect("nothing of it is there yet"),
        other => panic!("{other:?}"),
    }
}

/// Says that bytes behind the end are about to be written, which needs nothing of the store.
fn fill(carol: &Vmds, node: NodeId, tag: u64) -> Result<Answer, Refusal> {
    carol.call(Call::Fill { node, tag, start: SIZE, end: SIZE + 1, write: true })
}

#[test]
fn only_the_backing_file_that_there_is_now_is_filled() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    add_store(&world, dir.path());
    let carol = world.connect(CAROL);
    let node = stored_file(&world, &carol);
    assert_eq!(fill(&carol, node, 0), Err(Refusal::Stale), "nobody writes it");

    let first = lease(&carol, node);
    assert_eq!(first.end, SIZE);
    assert_eq!(fill(&carol, node, first.tag ^ 1), Err(Refusal::Stale), "there never was such a file");
    // Nothing was changed: it goes, and the store is not asked.
    assert!(matches!(carol.call(Call::CloseWrite { node }), Ok(Answer::Attr(attr)) if !attr.volatile));
    assert_eq!(fill(&carol, node, first.tag), Err(Refusal::Stale), "it is gone");

    let second = lease(&carol, node);
    assert_ne!(second.tag, first.tag);
    assert_eq!(fill(&carol, node, first.tag), Err(Refusal::Stale), "another one is in its place");
    assert_eq!(fill(&carol, node, second.tag), Ok(Answer::Done));
}

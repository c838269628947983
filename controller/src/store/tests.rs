//! Tests of the store.

use std::time::Duration;

use address_map::clock::ManualClock;
use address_map::engine::{MemoryEngine, Reader};
use serde_json::json;

use super::*;
use crate::resource::{Manifest, Pool, Tenant, Truth};

fn engine() -> Arc<MemoryEngine> {
    Arc::new(MemoryEngine::default())
}

fn open(engine: &Arc<MemoryEngine>) -> Arc<Store> {
    Store::open_with_history(Arc::clone(engine) as _, Arc::new(ManualClock::default()), 4).unwrap()
}

fn tenant(name: &str, inodes: u64) -> Manifest {
    Manifest::new(Kind::Tenant, name, json!({"quota": {"inodes": inodes}}))
}

fn apply(store: &Store, name: &str, manifest: &Manifest) -> Result<(Outcome, Object)> {
    store.apply(Kind::Tenant, name, manifest, 0)
}

#[test]
fn a_spec_is_created_configured_and_left_alone() {
    let store = open(&engine());
    let (outcome, made) = apply(&store, "a", &tenant("a", 5)).unwrap();
    assert_eq!((outcome, made.metadata.generation, made.metadata.resource_version), (Outcome::Created, 1, 1));
    assert_eq!(made.status["tenantId"], 1);
    let (outcome, same) = apply(&store, "a", &tenant("a", 5)).unwrap();
    assert_eq!((outcome, same), (Outcome::Unchanged, made));
    let (outcome, new) = apply(&store, "a", &tenant("a", 6)).unwrap();
    assert_eq!((outcome, new.metadata.generation, store.version()), (Outcome::Configured, 2, 2));
    assert_eq!(store.get(Kind::Tenant, "a").unwrap(), Some(new));
}

#[test]
fn numbers_are_never_given_twice() {
    let engine = engine();
    let (_, first) = apply(&open(&engine), "a", &tenant("a", 5)).unwrap();
    let store = open(&engine);
    store.forget(Kind::Tenant, "a", first.metadata.uid).unwrap();
    let (_, second) = apply(&store, "a", &tenant("a", 5)).unwrap();
    assert_eq!(second.status["tenantId"], 2);
    assert!(second.metadata.uid > first.metadata.uid);
    let pool = Manifest::new(Kind::Pool, "p", json!({"posix": {"path": "/p"}}));
    let (_, pool) = store.apply(Kind::Pool, "p", &pool, 0).unwrap();
    assert_eq!(pool.status["poolId"], 1);
}

#[test]
fn a_stale_version_is_a_conflict() {
    let store = open(&engine());
    apply(&store, "a", &tenant("a", 5)).unwrap();
    let error = apply(&store, "a", &tenant("a", 6).at_version(7)).unwrap_err();
    assert!(matches!(error, StoreError::Stale { expected: 7, found: 1, .. }), "{error}");
    let (outcome, _) = apply(&store, "a", &tenant("a", 5).at_version(7)).unwrap();
    assert_eq!(outcome, Outcome::Unchanged, "nothing was missed");
    apply(&store, "a", &tenant("a", 6).at_version(1)).unwrap();
    let error = apply(&store, "b", &tenant("b", 6).at_version(1)).unwrap_err();
    assert!(matches!(error, StoreError::Stale { found: 0, .. }), "{error}");
    let error = store.request_deletion(Kind::Tenant, "a", Some(1), false).unwrap_err();
    assert!(matches!(error, StoreError::Stale { found: 2, .. }), "{error}");
}

#[test]
fn version_zero_means_it_must_be_new() {
    let store = open(&engine());
    apply(&store, "a", &tenant("a", 5).at_version(0)).unwrap();
    let (outcome, _) = apply(&store, "a", &tenant("a", 5).at_version(0)).unwrap();
    assert_eq!(outcome, Outcome::Unchanged);
    let error = apply(&store, "a", &tenant("a", 6).at_version(0)).unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
}

#[test]
fn nothing_is_committed_for_a_bad_spec() {
    let store = open(&engine());
    let bad = Manifest::new(Kind::Tenant, "a", json!({"quota": {"bytes": []}}));
    assert!(matches!(apply(&store, "a", &bad), Err(StoreError::Invalid(_))));
    assert_eq!(store.version(), 0);
}

#[test]
fn status_is_kept_for_the_very_resource_it_speaks_of() {
    let store = open(&engine());
    apply(&store, "a", &tenant("a", 5)).unwrap();
    let mut seen = store.read::<Tenant>("a").unwrap().unwrap();
    seen.status.common.state(store.clock().now(), "Ready", Truth::True, "Serving", "");
    store.set_status(&seen).unwrap();
    assert_eq!(store.version(), 2);
    store.set_status(&seen).unwrap();
    assert_eq!(store.version(), 2, "the same status is no change");
    assert!(store.read::<Tenant>("a").unwrap().unwrap().is_ready());

    store.forget(Kind::Tenant, "a", seen.metadata.uid).unwrap();
    store.set_status(&seen).unwrap();
    apply(&store, "a", &tenant("a", 5)).unwrap();
    store.set_status(&seen).unwrap();
    store.forget(Kind::Tenant, "a", seen.metadata.uid).unwrap();
    assert!(!store.read::<Tenant>("a").unwrap().unwrap().is_ready());
}

#[test]
fn deletion_is_a_flag_that_can_be_strengthened_or_withdrawn() {
    let store = open(&engine());
    apply(&store, "a", &tenant("a", 5)).unwrap();
    let delete = |forced| store.request_deletion(Kind::Tenant, "a", None, forced).unwrap().metadata;
    assert_eq!((delete(false).generation, delete(false).generation), (2, 2));
    assert!(matches!(apply(&store, "a", &tenant("a", 6)), Err(StoreError::BeingDeleted { .. })));
    assert!(delete(true).deletion_forced && delete(false).deletion_forced);
    store.withdraw_deletion(&store.read::<Tenant>("a").unwrap().unwrap()).unwrap();
    let meta = store.get(Kind::Tenant, "a").unwrap().unwrap().metadata;
    assert!(!meta.deletion_requested && !meta.deletion_forced);
    let missing = store.request_deletion(Kind::Tenant, "b", None, false);
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
}

#[test]
fn a_list_shows_a_version_and_only_its_kinds() {
    let store = open(&engine());
    for name in ["b", "a", "a-1"] {
        apply(&store, name, &tenant(name, 5)).unwrap();
    }
    let (version, objects) = store.list(&[Kind::Pool, Kind::Tenant]).unwrap();
    assert_eq!((version, objects.iter().map(Object::name).collect::<Vec<_>>()), (3, vec!["a", "a-1", "b"]));
    assert!(store.read_all::<Pool>().unwrap().is_empty());
}

#[test]
fn changes_are_told_from_a_version_until_it_is_too_old() {
    let engine = engine();
    let store = open(&engine);
    for inodes in 1..=3 {
        apply(&store, "a", &tenant("a", inodes)).unwrap();
    }
    let versions = |store: &Store, from| {
        store.events_since(from, 10).map(|events| events.iter().map(|e| e.version).collect::<Vec<_>>())
    };
    assert_eq!(versions(&store, 0), Ok(vec![1, 2, 3]));
    assert_eq!(versions(&store, 2), Ok(vec![3]));
    assert_eq!(versions(&store, 3), Ok(vec![]));
    assert_eq!(versions(&store, 4), Err(Gone { from: 4, oldest: 0 }), "the future is not known");
    for inodes in 4..=6 {
        apply(&store, "a", &tenant("a", inodes)).unwrap();
    }
    assert_eq!(versions(&store, 1), Err(Gone { from: 1, oldest: 2 }));
    assert_eq!(versions(&store, 2), Ok(vec![3, 4, 5, 6]));
    let uid = store.get(Kind::Tenant, "a").unwrap().unwrap().metadata.uid;
    store.forget(Kind::Tenant, "a", uid).unwrap();
    assert_eq!(store.events_since(6, 10).unwrap()[0].change, Change::Deleted);

    let again = open(&engine);
    assert_eq!(again.version(), 7);
    assert_eq!(versions(&again, 6), Err(Gone { from: 6, oldest: 7 }), "history is not kept over a restart");
    assert_eq!(versions(&again, 7), Ok(vec![]));
}

#[test]
fn state_of_a_newer_version_is_refused() {
    let engine = engine();
    drop(open(&engine));
    let mut batch = Batch::default();
    batch.put(Key::from_slice(format::FORMAT_KEY), vec![format::FORMAT + 1]);
    engine.commit(&batch).unwrap();
    let error = Store::open(Arc::clone(&engine) as _, Arc::new(ManualClock::default())).err().unwrap();
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[test]
fn readiness_does_not_survive_a_restart() {
    let engine = engine();
    let store = open(&engine);
    apply(&store, "a", &tenant("a", 5)).unwrap();
    let mut seen = store.read::<Tenant>("a").unwrap().unwrap();
    seen.status.common.state(store.clock().now(), "Ready", Truth::True, "Serving", "");
    store.set_status(&seen).unwrap();
    for _ in 0..2 {
        let again = open(&engine);
        assert_eq!(again.version(), 3);
        let tenant = again.get(Kind::Tenant, "a").unwrap().unwrap();
        assert_eq!(
            (tenant.readiness().unwrap().status, tenant.metadata.resource_version),
            (Truth::Unknown, 3)
        );
    }
}

#[test]
fn damaged_records_are_told_by_key() {
    let engine = engine();
    let store = open(&engine);
    apply(&store, "a", &tenant("a", 1)).unwrap();
    let key = format::resource_key(Kind::Tenant, "a");
    assert_eq!(engine.get(&key).unwrap().unwrap()[0], format::FORMAT);
    let mut batch = Batch::default();
    batch.put(key, vec![format::FORMAT, b'{']);
    engine.commit(&batch).unwrap();
    let error = store.list(&[Kind::Tenant]).unwrap_err();
    assert_eq!(error.to_string(), "the stored record 'res/tenants/a' is damaged");
}

#[test]
fn the_time_of_creation_comes_from_the_clock() {
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_secs(86_400));
    let store = Store::open(engine() as _, clock).unwrap();
    let (_, made) = store.apply(Kind::Tenant, "a", &tenant("a", 1), 1000).unwrap();
    assert_eq!(made.metadata.created.to_string(), "1970-01-02T00:00:00Z");
    assert_eq!(made.metadata.created_by, 1000);
}

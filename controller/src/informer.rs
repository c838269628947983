//! A local, indexed copy of all resources, kept up to date by list and watch.
//!
//! **Flow**: list, then watch from the version of the list; where the watch falls behind, list again and tell the
//! difference. Every `resync` all resources are told again, so that a reconciler that missed something catches up.
//! **Caveat**: the copy may lag behind the store; decisions read the store, triggers and overviews read the copy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::resource::{Kind, Object, Reference};
use crate::store::{Change, Event, Store, StoreError};
use crate::watch::Watch;

/// A change of the copy. Both sides are the same when the resource is only told again.
#[derive(Clone, Debug)]
pub struct Delta {
    /// What it was; `None`: it is new.
    pub old: Option<Arc<Object>>,
    /// What it is; `None`: it is gone.
    pub new: Option<Arc<Object>>,
}

impl Delta {
    /// The resource after the change, or as it last was.
    pub fn object(&self) -> Option<&Arc<Object>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

#[derive(Default)]
struct Copy {
    objects: BTreeMap<(Kind, String), Arc<Object>>,
    referrers: HashMap<Reference, BTreeSet<Reference>>,
}

impl Copy {
    fn put(&mut self, object: Arc<Object>) -> Delta {
        let key = (object.kind, object.name().to_owned());
        let old = self.objects.insert(key, Arc::clone(&object));
        if let Some(old) = &old {
            self.unlink(old);
        }
        let this = Reference::new(object.kind, object.name());
        for needed in references(&object) {
            self.referrers.entry(needed).or_default().insert(this.clone());
        }
        Delta { old, new: Some(object) }
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Delta {
        let old = self.objects.remove(&(kind, name.to_owned()));
        if let Some(old) = &old {
            self.unlink(old);
        }
        Delta { old, new: None }
    }

    fn unlink(&mut self, object: &Object) {
        let this = Reference::new(object.kind, object.name());
        for needed in references(object) {
            if let Some(set) = self.referrers.get_mut(&needed) {
                set.remove(&this);
                if set.is_empty() {
                    self.referrers.remove(&needed);
                }
            }
        }
    }
}

/// What a resource needs; nothing if it cannot be read (its reconciler says so).
pub fn references(object: &Object) -> Vec<Reference> {
    (object.kind.info().references)(object).unwrap_or_default()
}

/// The copy.
#[derive(Default)]
pub struct Cache {
    copy: RwLock<Copy>,
}

impl Cache {
    /// A resource.
    pub fn get(&self, kind: Kind, name: &str) -> Option<Arc<Object>> {
        self.copy.read().objects.get(&(kind, name.to_owned())).cloned()
    }

    /// All resources of a kind, by name.
    pub fn list(&self, kind: Kind) -> Vec<Arc<Object>> {
        let copy = self.copy.read();
        let from = (kind, String::new());
        copy.objects
            .range(from..)
            .take_while(|((k, _), _)| *k == kind)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// The resources that need this one.
    pub fn referring_to(&self, needed: &Reference) -> Vec<Reference> {
        self.copy.read().referrers.get(needed).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    fn take_in(&self, event: Event) -> Delta {
        let mut copy = self.copy.write();
        match event.change {
            Change::Put => copy.put(event.object),
            Change::Deleted => copy.remove(event.object.kind, event.object.name()),
        }
    }

    /// Makes the copy what a list shows and answers the differences, deletions last.
    fn replace(&self, listed: Vec<Object>) -> Vec<Delta> {
        let mut copy = self.copy.write();
        let mut gone: BTreeSet<_> = copy.objects.keys().cloned().collect();
        let mut deltas = Vec::with_capacity(listed.len());
        for object in listed {
            gone.remove(&(object.kind, object.name().to_owned()));
            deltas.push(copy.put(Arc::new(object)));
        }
        deltas.extend(gone.into_iter().map(|(kind, name)| copy.remove(kind, &name)));
        deltas
    }
}

/// Keeps `cache` up to date and tells every change to `told`, for ever.
///
/// # Errors
/// The store cannot be listed.
pub async fn run(
    store: &Arc<Store>,
    cache: &Cache,
    resync: Duration,
    mut told: impl FnMut(&Cache, Delta),
) -> Result<std::convert::Infallible, StoreError> {
    loop {
        let (version, listed) = store.run(|store| store.list(Kind::ALL)).await?;
        for delta in cache.replace(listed) {
            told(cache, delta);
        }
        follow(Watch::new(store, version), cache, resync, &mut told).await;
        tracing::warn!("the informer fell behind and lists again");
    }
}

/// Follows a watch until it falls behind.
async fn follow(mut watch: Watch, cache: &Cache, resync: Duration, told: &mut impl FnMut(&Cache, Delta)) {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + resync, resync);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = watch.next() => match event {
                Ok(event) => told(cache, cache.take_in(event)),
                Err(_gone) => return,
            },
            _ = tick.tick() => {
                for object in Kind::ALL.iter().flat_map(|&kind| cache.list(kind)) {
                    told(cache, Delta { old: Some(Arc::clone(&object)), new: Some(object) });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use address_map::clock::ManualClock;
    use address_map::engine::MemoryEngine;
    use serde_json::json;

    use super::*;
    use crate::resource::Manifest;

    fn store() -> Arc<Store> {
        Store::open(Arc::new(MemoryEngine::default()), Arc::new(ManualClock::default())).unwrap()
    }

    fn put(store: &Store, kind: Kind, name: &str, spec: serde_json::Value) {
        store.apply(kind, name, &Manifest::new(kind, name, spec), 0).unwrap();
    }

    fn share(from: &str, to: &str) -> serde_json::Value {
        json!({"from": {"tenant": from, "path": "/d"}, "to": {"tenant": to}, "rights": "readOnly"})
    }

    /// Runs the informer until `enough` changes were told.
    async fn told(store: &Arc<Store>, cache: &Cache, resync: Duration, enough: usize) -> Vec<Delta> {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let informer = run(store, cache, resync, |_, delta| sender.send(delta).unwrap());
        let collect = async {
            let mut deltas = Vec::new();
            while deltas.len() < enough {
                deltas.push(receiver.recv().await.unwrap());
            }
            deltas
        };
        tokio::select! {
            stopped = informer => panic!("{:?}", stopped.err()),
            deltas = collect => deltas,
        }
    }

    #[tokio::test]
    async fn the_copy_follows_the_store_with_its_index() {
        let (store, cache) = (store(), Cache::default());
        put(&store, Kind::Share, "s1", share("a", "b"));
        put(&store, Kind::Share, "s2", share("b", "c"));
        let hour = Duration::from_secs(3600);
        assert_eq!(told(&store, &cache, hour, 2).await.len(), 2);
        let to_b = Reference::new(Kind::Tenant, "b");
        assert_eq!(cache.referring_to(&to_b).len(), 2);
        assert_eq!(cache.list(Kind::Share).len(), 2);
        assert!(cache.list(Kind::Tenant).is_empty());

        let uid = cache.get(Kind::Share, "s1").unwrap().metadata.uid;
        store.forget(Kind::Share, "s1", uid).unwrap();
        let deltas = told(&store, &cache, hour, 2).await;
        assert!(deltas[1].new.is_none() && deltas[1].object().unwrap().name() == "s1");
        assert_eq!(cache.referring_to(&to_b), [Reference::new(Kind::Share, "s2")]);
        assert!(cache.referring_to(&Reference::new(Kind::Tenant, "a")).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_told_again_periodically() {
        let (store, cache) = (store(), Cache::default());
        put(&store, Kind::Share, "s1", share("a", "b"));
        let deltas = told(&store, &cache, Duration::from_secs(60), 3).await;
        assert!(deltas[0].old.is_none());
        assert!(Arc::ptr_eq(deltas[2].old.as_ref().unwrap(), deltas[2].new.as_ref().unwrap()));
    }

    #[tokio::test]
    async fn what_happened_while_too_far_behind_is_found_by_listing() {
        let (store, cache) = (store(), Cache::default());
        put(&store, Kind::Share, "s1", share("a", "b"));
        let (version, listed) = store.list(Kind::ALL).unwrap();
        cache.replace(listed);
        let uid = cache.get(Kind::Share, "s1").unwrap().metadata.uid;
        store.forget(Kind::Share, "s1", uid).unwrap();
        let behind = Watch::new(&store, version + 100);
        follow(behind, &cache, Duration::from_secs(60), &mut |_, _| panic!("nothing can be told")).await;
        let deltas = cache.replace(store.list(Kind::ALL).unwrap().1);
        assert!(deltas.len() == 1 && deltas[0].new.is_none());
    }
}

//! The driver: from changes to names in queues, and from queues to reconcilers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Next, Reconciler};
use crate::informer::{Cache, Delta, references};
use crate::logging::chain;
use crate::metrics::{Metrics, ReconcileLabels, ReconcileOutcome};
use crate::queue::{Done, WorkQueue};
use crate::resource::{Kind, Object, Reference};

/// Resources of one kind that are worked on at the same time.
const WORKERS_PER_KIND: usize = 4;

/// Longest wait for work under way when the controller goes down.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// One queue per kind, so that slow work on one kind does not hold up another.
pub struct Queues(BTreeMap<Kind, WorkQueue<String>>);

impl Default for Queues {
    fn default() -> Self {
        Self(Kind::ALL.iter().map(|&kind| (kind, WorkQueue::default())).collect())
    }
}

impl Queues {
    /// Asks for a look at a resource.
    pub fn add(&self, resource: &Reference) {
        self.of(resource.kind).add(resource.name.clone());
    }

    /// The queue of a kind.
    pub fn of(&self, kind: Kind) -> &WorkQueue<String> {
        &self.0[&kind]
    }

    /// Asks for a look at everything that a change concerns: the resource, those that need it, those it needs.
    pub fn change(&self, cache: &Cache, delta: &Delta) {
        for resource in concerned(cache, delta) {
            self.add(&resource);
        }
    }
}

fn concerned(cache: &Cache, delta: &Delta) -> Vec<Reference> {
    let Some(object) = delta.object() else { return Vec::new() };
    let this = Reference::new(object.kind, object.name());
    match (&delta.old, &delta.new) {
        (Some(old), Some(new)) if Arc::ptr_eq(old, new) => vec![this],
        (Some(old), Some(new)) => {
            let same_wish = wish(old) == wish(new);
            let mut concerned = Vec::new();
            if !same_wish {
                concerned.push(this.clone());
            }
            if !same_wish || old.readiness().map(|c| c.status) != new.readiness().map(|c| c.status) {
                concerned.extend(cache.referring_to(&this));
            }
            concerned
        }
        _ => {
            let mut concerned = cache.referring_to(&this);
            concerned.extend(references(object));
            concerned.push(this);
            concerned
        }
    }
}

/// The part of a resource that clients decide.
fn wish(object: &Object) -> (u64, u64, bool) {
    (object.metadata.uid, object.metadata.generation, object.metadata.deletion_requested)
}

/// The workers.
pub struct Workers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts workers for each reconciler.
    pub fn start(
        reconcilers: Vec<Arc<dyn Reconciler>>,
        queues: &Arc<Queues>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for reconciler in reconcilers {
            for _ in 0..WORKERS_PER_KIND {
                let worker =
                    work(Arc::clone(&reconciler), Arc::clone(queues), Arc::clone(metrics), stopped.clone());
                tasks.spawn(worker);
            }
        }
        Self { tasks, stop }
    }

    /// Takes no more work and waits for what is under way, for a bounded time.
    pub async fn finish(mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH_WITHIN, all).await.is_err() {
            tracing::warn!(
                seconds = FINISH_WITHIN.as_secs(),
                "reconcilers did not finish in time; going on without"
            );
        }
    }
}

async fn work(
    reconciler: Arc<dyn Reconciler>,
    queues: Arc<Queues>,
    metrics: Arc<Metrics>,
    mut stopped: watch::Receiver<bool>,
) {
    let kind = reconciler.kind();
    loop {
        let name = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return,
            name = queues.of(kind).take() => name,
        };
        let outcome = {
            let (reconciler, name) = (Arc::clone(&reconciler), name.clone());
            tokio::task::spawn_blocking(move || reconciler.reconcile(&name)).await
        };
        let (done, error) = match outcome {
            Ok(Ok(Next::Change)) => (Done::Settled, None),
            Ok(Ok(Next::After(delay))) => (Done::LookAgain(delay), None),
            Ok(Err(error)) => (Done::Failed, Some(chain(&error))),
            Err(panicked) => (Done::Failed, Some(panicked.to_string())),
        };
        let label = if error.is_some() { ReconcileOutcome::Failed } else { ReconcileOutcome::Ok };
        metrics.reconciled.get_or_create(&ReconcileLabels::new(kind, label)).inc();
        let failures = queues.of(kind).done(name.clone(), done);
        if let Some(error) = error {
            log_failure(kind, &name, failures, &error);
        }
    }
}

/// Told once; while it goes on like that the status and the metrics say so, and a tenant cannot flood the log.
fn log_failure(kind: Kind, name: &str, failures: u32, error: &str) {
    if failures == 1 {
        tracing::warn!(%kind, name, error, "not reconciled; trying again, later and later");
    } else {
        tracing::debug!(%kind, name, error, failures, "not reconciled again");
    }
}

#[cfg(test)]
mod tests {
    use address_map::clock::ManualClock;
    use address_map::engine::MemoryEngine;
    use serde_json::json;

    use super::*;
    use crate::reconcile::ReconcileError;
    use crate::resource::Manifest;
    use crate::store::Store;

    fn object(store: &Store, kind: Kind, name: &str, spec: serde_json::Value) -> Arc<Object> {
        Arc::new(store.apply(kind, name, &Manifest::new(kind, name, spec), 0).unwrap().1)
    }

    #[tokio::test]
    async fn a_change_concerns_the_resource_and_its_neighbours() {
        let store = Store::open(Arc::new(MemoryEngine::default()), Arc::new(ManualClock::default())).unwrap();
        let cache = Cache::default();
        let mount = object(&store, Kind::Mount, "mnt", json!({"tenant": "a", "dir": "/mnt"}));
        let tenant = object(&store, Kind::Tenant, "a", json!({}));
        let informer = crate::informer::run(&store, &cache, Duration::from_secs(60), |_, _| ());
        let synced = async {
            while cache.get(Kind::Tenant, "a").is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { _ = informer => panic!("the informer stopped"), () = synced => {} }

        let names = |old: Option<&Arc<Object>>, new: Option<&Arc<Object>>| {
            let delta = Delta { old: old.cloned(), new: new.cloned() };
            concerned(&cache, &delta).into_iter().map(|r| r.name).collect::<Vec<_>>()
        };
        assert_eq!(names(None, Some(&mount)), ["a", "mnt"], "the tenant hears of its mount");
        assert_eq!(names(Some(&mount), None), ["a", "mnt"]);
        assert_eq!(names(Some(&tenant), Some(&tenant)), ["a"], "told again");
        let mut changed = Object::clone(&tenant);
        changed.status["usage"]["bytes"] = json!(7);
        assert!(names(Some(&tenant), Some(&Arc::new(changed.clone()))).is_empty(), "usage concerns nobody");
        changed.status["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "r", "message": "",
            "lastTransition": "2031-05-07T12:00:00Z"}]);
        assert_eq!(names(Some(&tenant), Some(&Arc::new(changed.clone()))), ["mnt"], "its mounts wait for it");
        changed.metadata.generation += 1;
        assert_eq!(names(Some(&tenant), Some(&Arc::new(changed))), ["a", "mnt"]);
    }

    struct Flaky(parking_lot::Mutex<Vec<String>>);

    impl Reconciler for Flaky {
        fn kind(&self) -> Kind {
            Kind::Pool
        }

        fn reconcile(&self, name: &str) -> Result<Next, ReconcileError> {
            let mut seen = self.0.lock();
            seen.push(name.to_owned());
            assert_ne!(seen.len(), 1, "the first try panics");
            Ok(Next::Change)
        }
    }

    #[tokio::test]
    async fn work_that_panics_is_tried_again() {
        let reconciler = Arc::new(Flaky(parking_lot::Mutex::new(Vec::new())));
        let queues = Arc::new(Queues::default());
        let workers =
            Workers::start(vec![Arc::clone(&reconciler) as _], &queues, &Arc::new(Metrics::default()));
        queues.add(&Reference::new(Kind::Pool, "p"));
        while reconciler.0.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
        workers.finish().await;
        assert_eq!(*reconciler.0.lock(), ["p", "p"]);
    }
}

//! The control plane as a running whole: informer, workers, API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::api::{Api, PeerListener};
use crate::informer::{self, Cache};
use crate::metrics::Metrics;
use crate::reconcile::{
    Context, MountReconciler, PoolReconciler, Queues, Reconciler, ShareReconciler, TenantReconciler, Workers,
    watch_mounts,
};
use crate::services::Services;
use crate::store::Store;

/// Every resource is looked at this often even if nothing is known to have changed.
const RESYNC_EVERY: Duration = Duration::from_secs(60);

/// Longest wait for requests under way when the controller goes down.
const REQUESTS_END_WITHIN: Duration = Duration::from_secs(3);

/// The running control plane.
pub struct ControlPlane {
    workers: Workers,
    /// Tasks that run until they are told to stop; one that ends by itself has failed.
    tasks: JoinSet<anyhow::Error>,
    api: JoinHandle<std::io::Result<()>>,
    stop: watch::Sender<bool>,
}

impl ControlPlane {
    /// Starts everything on an open store and socket.
    pub fn start(store: Arc<Store>, services: Services, shards: u16, listener: UnixListener) -> Self {
        let (cache, queues) = (Arc::<Cache>::default(), Arc::<Queues>::default());
        let metrics = Arc::new(Metrics::new(
            services.forgeries.clone(),
            services.audit_dropped.clone(),
            services.disk_caches.clone(),
        ));
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let context =
            Arc::new(Context { store: Arc::clone(&store), services: services.clone(), shards, hostname });
        let reconcilers: Vec<Arc<dyn Reconciler>> = vec![
            Arc::new(PoolReconciler::new(Arc::clone(&context))),
            Arc::new(TenantReconciler(Arc::clone(&context))),
            Arc::new(ShareReconciler(Arc::clone(&context))),
            Arc::new(MountReconciler(context)),
        ];
        let workers = Workers::start(reconcilers, &queues, &metrics);
        let mut tasks = JoinSet::new();
        tasks.spawn(inform(Arc::clone(&store), Arc::clone(&cache), Arc::clone(&queues)));
        let (agent, told, known) = (Arc::clone(&services.mounts), Arc::clone(&queues), Arc::clone(&cache));
        tasks.spawn(async move {
            watch_mounts(agent, told, known).await;
            anyhow!("the mounts are not being watched any more")
        });
        let (stop, stopping) = watch::channel(false);
        let api = Api { store, services, cache, queues, metrics, started: Instant::now(), stopping };
        let api = tokio::spawn(api.serve(PeerListener::new(listener)));
        Self { workers, tasks, api, stop }
    }

    /// Waits until a part that should run for ever has failed.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            task = self.tasks.join_next() => match task {
                Some(Ok(error)) => error,
                Some(Err(panicked)) => anyhow!(panicked),
                None => anyhow!("the control plane has no tasks"),
            },
            api = &mut self.api => anyhow!("the API does not serve any more: {api:?}"),
        }
    }

    /// Ends everything: first requests, then triggers, then the work under way.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if !self.api.is_finished() && tokio::time::timeout(REQUESTS_END_WITHIN, &mut self.api).await.is_err()
        {
            self.api.abort();
        }
        self.tasks.shutdown().await;
        self.workers.finish().await;
    }
}

async fn inform(store: Arc<Store>, cache: Arc<Cache>, queues: Arc<Queues>) -> anyhow::Error {
    match informer::run(&store, &cache, RESYNC_EVERY, |cache, delta| queues.change(cache, &delta)).await {
        Err(error) => error.into(),
    }
}

//! The composition root: opens the address map and puts the services on top of it.

use std::sync::Arc;

use address_map::clock::SystemClock;
use address_map::engine::{Committer, Engine, FjallOptions, FjallStore};
use address_map::ids::{PoolId, ShardId, TenantId};
use address_map::map::AddressMap;
use address_map::shard::Shard;
use anyhow::Context;

use crate::agent::Agent;
use crate::audit::Audit;
use crate::config::Config;
use crate::file_clock::FileClock;
use crate::logging::chain;
use crate::map_service::PlaneServices;
use crate::pool::{Pools, RemoteUse};
use crate::resource::{Pool, Tenant};
use crate::services::Services;
use crate::session::DataPlane;
use crate::store::{Store, StoreError};

/// Records of the address map kept in memory, for all shards together; a record takes about 200 bytes.
const CACHED_RECORDS: usize = 512 * 1024;
/// The engine of the control plane's resources.
const SYSTEM_ENGINE: &str = "system";

/// Opens the address map and starts the services.
///
/// # Errors
/// The state cannot be opened (in use, damaged, or written by a newer version), or the agent cannot work here.
pub fn assemble(config: &Config) -> anyhow::Result<(Services, Arc<dyn Engine>)> {
    let map_dir = config.state_dir.join("map");
    let store = FjallStore::open(&map_dir, FjallOptions::default())
        .with_context(|| format!("cannot open the address map in {}", map_dir.display()))?;
    let system: Arc<dyn Engine> = Arc::new(store.engine(SYSTEM_ENGINE)?);
    let shards = (0..config.shards)
        .map(|number| {
            let engine = Arc::new(store.engine(&format!("shard-{number}"))?);
            let cached = CACHED_RECORDS / usize::from(config.shards.max(1));
            Ok(Arc::new(Shard::new(ShardId(number), engine, cached)))
        })
        .collect::<address_map::Result<_>>()?;
    let clock = FileClock::new().context("cannot make a file in memory")?;
    let map = AddressMap::new(shards, Arc::new(clock));
    // One store, one journal: one committer serves all shards.
    let committer = Committer::new(system.clone());
    let remote = RemoteUse { patience: config.pool_timeout, passthrough: config.remote_passthrough };
    let audit = Audit::start(&config.state_dir.join("audit")).context("cannot begin the audit log")?;
    let audit_dropped = audit.dropped();
    let plane =
        DataPlane::start(map, Pools::new(remote), committer, audit).context("cannot start a thread")?;
    let services = Arc::new(PlaneServices::new(plane.clone(), config.state_dir.join("staging")));
    restore(&system, &plane, &services).context("cannot read what was served before")?;
    let (forgeries, disk_caches) = (plane.forgeries.clone(), plane.pools.disk_caches.clone());
    let agent = Agent::new(plane, config.vmds.clone(), &config.run_dir)
        .with_context(|| format!("cannot clean up in {}", config.run_dir.display()))?;
    let services = Services {
        map: services.clone(),
        mounts: agent,
        pools: services,
        forgeries,
        audit_dropped,
        disk_caches,
    };
    Ok((services, system))
}

/// Opens the pools and finds the tenants that were there before. Mounts of a predecessor are taken over at once, and
/// their users wait: what they ask for must not be unknown until the reconcilers have come around.
fn restore(system: &Arc<dyn Engine>, plane: &DataPlane, services: &PlaneServices) -> Result<(), StoreError> {
    let store = Store::open(system.clone(), Arc::new(SystemClock))?;
    for pool in store.read_all::<Pool>()? {
        if let Err(error) = services.reopen_pool(PoolId(pool.status.pool_id), pool.name(), &pool) {
            tracing::warn!(pool = pool.name(), error = %chain(&error), "cannot open a pool yet");
        }
    }
    for tenant in store.read_all::<Tenant>()? {
        let routed = tenant
            .status
            .shard
            .map(|shard| plane.map.route(TenantId(tenant.status.tenant_id), ShardId(shard)));
        if let Some(Err(error)) = routed {
            tracing::warn!(tenant = tenant.name(), error = %chain(&error), "cannot serve a tenant");
        }
    }
    Ok(())
}

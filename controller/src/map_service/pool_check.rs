//! Comparing a pool in an object store with the map, while both are in use.
//!
//! First the bucket is listed, tenant by tenant, and the map is asked about each object ([`orphans`]); then the files of
//! the map are gone through, and the list of the bucket is read beside them ([`files`]). Of neither side more than a page
//! is in memory.
//!
//! **No false alarm**: both sides change between the two looks at them, so whatever does not fit is looked at again, in
//! an order in which it cannot look wrong by chance: keys are never used twice, and a file lets go of an object before
//! that is deleted.

mod files;
mod orphans;

use std::time::{Duration, Instant};

use address_map::error::{MapError, Refusal};
use address_map::ids::{Ino, TenantId};
use address_map::map::Tree;
use address_map::namespace::lookup;
use address_map::record::ObjectRef;

use super::{PlaneServices, internal, map_failed};
use crate::pool::ObjectStore;
use crate::pool::s3::S3Error;
use crate::services::{
    Listener, PoolCheckEvent, PoolCheckOrder, PoolCheckSummary, PoolProblem, PoolProblemKind, ServiceError,
};
use crate::session::DataPlane;

/// Between two reports of how far it has come.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How many problems are told with the path of the file: to find it its directories are searched.
const PATHS_MAX: u64 = 100;

/// Why a check ended early.
enum Ended {
    /// Nobody listens any more.
    Unheard,
    /// It failed.
    Failed(ServiceError),
}

impl From<ServiceError> for Ended {
    fn from(error: ServiceError) -> Self {
        Ended::Failed(error)
    }
}

impl From<MapError> for Ended {
    fn from(error: MapError) -> Self {
        Ended::Failed(map_failed(error))
    }
}

/// A check that is being made.
struct Check<'a> {
    plane: &'a DataPlane,
    store: ObjectStore,
    order: &'a PoolCheckOrder,
    tell: Listener<'a, PoolCheckEvent>,
    so_far: PoolCheckSummary,
    reported: Instant,
}

impl PlaneServices {
    /// See [`crate::services::PoolService::check_pool`].
    pub(super) fn compare_pool(
        &self,
        order: &PoolCheckOrder,
        tell: Listener<'_, PoolCheckEvent>,
    ) -> Result<PoolCheckSummary, ServiceError> {
        let pool = self.plane.pools.get(order.id).map_err(internal)?;
        let Some(store) = pool.store.clone() else {
            return Err(ServiceError::Invalid(
                "only pools in object stores can be compared with the map; for the map itself there is: vmdsctl check"
                    .to_owned(),
            ));
        };
        if let Some(cache) = &store.cache {
            self.plane.compare_cache(cache);
        }
        let reported = Instant::now();
        let mut check =
            Check { plane: &self.plane, store, order, tell, so_far: PoolCheckSummary::default(), reported };
        match check.run() {
            Ok(()) | Err(Ended::Unheard) => Ok(check.so_far),
            Err(Ended::Failed(error)) => Err(error),
        }
    }
}

impl Check<'_> {
    fn run(&mut self) -> Result<(), Ended> {
        self.look_for_orphans()?;
        for tenant in self.plane.map.tenants() {
            // One that is being deleted takes its files along.
            if let Ok(tree) = self.plane.map.tree(tenant) {
                self.look_for_files(&tree)?;
            }
        }
        Ok(())
    }

    /// Asks the store something.
    fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(&crate::pool::s3::S3Pool) -> Result<T, S3Error>,
    ) -> Result<T, Ended> {
        let answered = self.store.runtime.wait_for(ask(&self.store.s3));
        answered.map_err(|error| Ended::Failed(super::pools::s3_failed(error)))
    }

    /// Tells now and then how far it has come, and finds out whether anybody listens.
    fn report(&mut self) -> Result<(), Ended> {
        if self.reported.elapsed() < REPORT_EVERY {
            return Ok(());
        }
        self.reported = Instant::now();
        self.say(PoolCheckEvent::Progress(self.so_far))
    }

    fn found(
        &mut self,
        kind: PoolProblemKind,
        (tenant, object): (TenantId, &ObjectRef),
        file: Option<(&Tree, Ino)>,
        detail: String,
    ) -> Result<(), Ended> {
        let tell_path = self.so_far.problems < PATHS_MAX;
        self.so_far.problems += 1;
        let file = file.map(|(tree, ino)| (ino, path_of(tree, ino).filter(|_| tell_path)));
        let key = self.store.s3.settings().full_key(&object.key);
        self.say(PoolCheckEvent::Problem(PoolProblem { kind, tenant, key, file, detail }))
    }

    fn say(&mut self, event: PoolCheckEvent) -> Result<(), Ended> {
        if (self.tell)(event) { Ok(()) } else { Err(Ended::Unheard) }
    }
}

/// A path that leads to a file.
fn path_of(tree: &Tree, ino: Ino) -> Option<address_map::name::LogicalPath> {
    let inode = lookup::inode(&tree.view(), ino).ok()?;
    let name = lookup::name_of(&tree.view(), inode.parent, ino).ok()?;
    super::sharing::path_to(tree, inode.parent, name).ok()
}

/// Whether the tenant is gone.
fn is_gone(error: &MapError) -> bool {
    matches!(error, MapError::UnknownTenant | MapError::Refused(Refusal::NotFound))
}

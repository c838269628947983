//! Reconcilers: they make what is be what is wanted, one kind each.
//!
//! **Flow**: a change, a period or an appointment puts a name into the queue of its kind; a worker hands the name,
//! and nothing else, to the reconciler; that reads what is wanted from the store and what is from the services,
//! makes a plan (pure, tested by itself), and carries it out.
//! **Guarantees**: at most one worker per resource; a reconciler that failed is asked again, later and later.
//! **Assumptions**: every step can be repeated.

mod driver;
#[cfg(test)]
pub(crate) mod fakes;
mod mount;
mod pool;
pub(crate) mod share;
pub(crate) mod tenant;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

pub use driver::{Queues, Workers};
pub use mount::{MountReconciler, watch_mounts};
pub use pool::PoolReconciler;
pub use share::ShareReconciler;
pub use tenant::TenantReconciler;

use crate::resource::{Kind, Resource, ResourceType, Truth};
use crate::services::{ServiceError, Services};
use crate::store::{Store, StoreError};

/// What reconcilers work with.
pub struct Context {
    /// What is wanted.
    pub store: Arc<Store>,
    /// What is, and the means to change it.
    pub services: Services,
    /// Number of shards that new tenants are spread over.
    pub shards: u16,
    /// The name of this host.
    pub hostname: String,
}

impl Context {
    /// The time.
    pub fn now(&self) -> SystemTime {
        self.store.clock().now()
    }
}

/// When to look at a resource again without a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    Change,
    /// After this time at the latest.
    After(Duration),
}

/// Why a resource is not yet what it should be.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// A service refused or failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reconciler of a kind. Blocks; is called on threads that may.
pub trait Reconciler: Send + Sync + 'static {
    /// The kind.
    fn kind(&self) -> Kind;

    /// Looks at the resource called `name` and does what there is to do; one that does not exist needs nothing.
    ///
    /// # Errors
    /// It is not as it should be; the status says so already. To be tried again.
    fn reconcile(&self, name: &str) -> Result<Next, ReconcileError>;
}

/// How a failure of a service is stated in a condition.
fn verdict(error: &ServiceError) -> (Truth, &'static str) {
    match error {
        ServiceError::NotFound(_) => (Truth::False, "NotFound"),
        ServiceError::Conflict(_) => (Truth::False, "Conflict"),
        ServiceError::Invalid(_) => (Truth::False, "Invalid"),
        ServiceError::Busy(_) => (Truth::False, "Busy"),
        ServiceError::Unavailable(_) => (Truth::Unknown, "Unavailable"),
        ServiceError::Internal(_) => (Truth::Unknown, "Internal"),
    }
}

/// The condition about a deletion that was withdrawn.
pub const DELETED: &str = "Deleted";

/// Work on one resource: its status is collected in memory and written once.
struct Work<'a, T: ResourceType> {
    context: &'a Context,
    resource: Resource<T>,
}

impl<'a, T: ResourceType> Work<'a, T> {
    /// Reads what is wanted; `None`: nothing any more.
    fn on(context: &'a Context, name: &str) -> Result<Option<Self>, ReconcileError> {
        Ok(context.store.read::<T>(name)?.map(|resource| Self { context, resource }))
    }

    fn state(&mut self, condition: &str, truth: Truth, reason: &str, message: impl Into<String>) {
        T::common_mut(&mut self.resource.status).state(self.context.now(), condition, truth, reason, message);
    }

    /// States that the resource is not what it should be because a service refused or failed.
    fn state_failure(&mut self, error: &ServiceError) {
        let (truth, reason) = verdict(error);
        self.state(T::READY, truth, reason, error.to_string());
    }

    /// Writes the status: the generation that was read is now dealt with, as far as the conditions say.
    fn save(&mut self) -> Result<(), ReconcileError> {
        T::common_mut(&mut self.resource.status).observed_generation = self.resource.metadata.generation;
        Ok(self.context.store.set_status(&self.resource)?)
    }

    /// Writes the status and hands on the failure that it states.
    fn save_failure(mut self, error: ServiceError) -> Result<Next, ReconcileError> {
        self.state_failure(&error);
        self.save()?;
        Err(error.into())
    }

    /// The deletion is refused: the resource stays, and says why.
    fn keep(mut self, reason: &str, message: impl Into<String>) -> Result<Next, ReconcileError> {
        self.state(DELETED, Truth::False, reason, message);
        T::common_mut(&mut self.resource.status).observed_generation = self.resource.metadata.generation;
        self.context.store.withdraw_deletion(&self.resource)?;
        Ok(Next::Change)
    }

    /// Everything the resource stood for is undone.
    fn forget(self) -> Result<Next, ReconcileError> {
        self.context.store.forget(T::KIND, self.resource.name(), self.resource.metadata.uid)?;
        Ok(Next::Change)
    }
}

/// A list for a sentence: at most three names, then how many more.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

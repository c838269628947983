//! What the control plane asks of the rest of the controller: the address map, the agent and the pools.
//!
//! All methods may block and are called from threads that may. All are idempotent: a reconciler that died half-way
//! asks again. Errors are sentences for people: what is wrong and what to do next. Nothing here is a decision of
//! the control plane; reconcilers decide, services do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use address_map::attr::FileKind;
use address_map::ids::{Ino, PoolId, ShardId, ShareId, TenantId};
use address_map::name::LogicalPath;
use address_map::record::{LeaseLimit, Quota, Rights, Usage};
use thiserror::Error;

use crate::audit::Dropped;
use crate::metrics::{DiskCaches, Forgeries};
use crate::resource::{DiskCacheStatus, MountFlags, PoolSpec, S3Capabilities};

/// Why a service did not do what it was asked.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// Something that was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Something else is in the way.
    #[error("{0}")]
    Conflict(String),
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Something is in use.
    #[error("{0}")]
    Busy(String),
    /// It may work later without anybody changing anything.
    #[error("{0}")]
    Unavailable(String),
    /// The service itself failed; details are in the chain of sources.
    #[error("the controller failed inside; its log says why")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The services together.
#[derive(Clone)]
pub struct Services {
    /// The address map and shares.
    pub map: Arc<dyn MapService>,
    /// The agent of this node.
    pub mounts: Arc<dyn MountService>,
    /// The pools.
    pub pools: Arc<dyn PoolService>,
    /// What VMDSes were refused that no honest one asks for.
    pub forgeries: Forgeries,
    /// Entries that the audit log lacks.
    pub audit_dropped: Dropped,
    /// What the disk caches of pools count.
    pub disk_caches: DiskCaches,
}

/// What the address map keeps about a tenant as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSetup {
    /// Its number.
    pub id: TenantId,
    /// Its name, for messages and logs.
    pub name: String,
    /// The shard that holds it; never changes.
    pub shard: ShardId,
    /// Where new files' bytes go.
    pub pool: PoolId,
    /// What it may use.
    pub quota: Quota,
    /// Owner of the root directory; used only when the root is made.
    pub root_uid: u32,
    /// Permission bits of the root directory; used only when the root is made.
    pub root_mode: u32,
}

/// A share to be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantOrder {
    /// Its number.
    pub id: ShareId,
    /// Whose data.
    pub owner: TenantId,
    /// The owner's name for it; must exist.
    pub path: LogicalPath,
    /// Who gets to see it.
    pub grantee: TenantId,
    /// The grantee's name for it; missing parents are made.
    pub target: LogicalPath,
    /// What the grantee may do.
    pub rights: Rights,
    /// Not valid at or after this time.
    pub expires: Option<SystemTime>,
    /// For how long addresses lead somewhere that are given out through it; `None`: as the pool says.
    pub leases: Option<LeaseLimit>,
}

/// What came of granting. What the owner did wrong is an error; what stands in the way at the grantee is here,
/// because the owner may not learn it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantOutcome {
    /// The share is live (or was already) under this path at the grantee.
    Granted(LogicalPath),
    /// The grantee has something else under the target's name.
    NameTaken,
    /// The grantee cannot take it for another reason: a sentence.
    Refused(String),
}

/// A share to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeOrder {
    /// Its number.
    pub id: ShareId,
    /// Whose data.
    pub owner: TenantId,
    /// Who saw it.
    pub grantee: TenantId,
    /// Every VMDS of the grantee is replaced, so that no descriptor survives.
    pub hard: bool,
}

/// What taking a share back reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Mounts that forgot it.
    pub mounts_dropped: u32,
    /// Mounts that could not be told.
    pub mounts_unreached: Vec<String>,
    /// When the last address that was given out stops working; `None`: none is out.
    pub last_lease_ends: Option<SystemTime>,
    /// Processes that were ended, and others started in their place; only if it was asked for.
    pub processes_replaced: u32,
}

/// A share that its grantee has dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedShare {
    /// Its number.
    pub id: ShareId,
    /// Mounts that forgot it.
    pub mounts_dropped: u32,
}

/// Where a logical path really is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// What it is.
    pub kind: FileKind,
    /// Its size, bytes.
    pub size: u64,
    /// Where its bytes are, in order of the file.
    pub ranges: Vec<GlobalRange>,
}

/// A piece of a file and its global address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalRange {
    /// First byte within the file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// Name of the pool.
    pub pool: String,
    /// Key of the object within the pool.
    pub key: String,
    /// The backing file, where the pool is a directory.
    pub path: Option<PathBuf>,
    /// The host whose disk it is on, where known.
    pub host: Option<String>,
}

/// What a check of the address map found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Tenants looked at.
    pub tenants: u64,
    /// Inodes looked at.
    pub inodes: u64,
    /// Directory entries looked at.
    pub entries: u64,
    /// One sentence for each thing wrong.
    pub problems: Vec<String>,
}

/// Objects of a bucket that are to be files of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOrder {
    /// Whose files.
    pub tenant: TenantId,
    /// The directory they appear in: one that is empty, or not there yet.
    pub path: LogicalPath,
    /// The bucket, which must be that of a pool.
    pub bucket: String,
    /// What the keys begin with, as a directory; empty: all.
    pub prefix: String,
    /// The pool, where several have this bucket.
    pub pool: Option<PoolId>,
    /// Owner of what appears; the owner of the tenant's root directory unless given.
    pub uid: Option<u32>,
    /// Group of what appears; the same.
    pub gid: Option<u32>,
    /// Permission bits of files, `0o777`.
    pub mode: u32,
    /// Directories are listed when somebody looks into them.
    pub lazy: bool,
}

/// How far an import has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Files that were made.
    pub files: u64,
    /// Directories that were made.
    pub directories: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Objects left out: VMDS's own, or with keys that are no text.
    pub skipped: u64,
    /// All objects are files now, or will be when somebody looks; otherwise nobody listened any more.
    pub complete: bool,
}

/// The address map and the shares in it.
pub trait MapService: Send + Sync + 'static {
    /// Makes the tenant's tree if there is none; brings quota and pool up to date.
    fn ensure_tenant(&self, setup: &TenantSetup) -> Result<(), ServiceError>;

    /// Removes all records and bytes of a tenant. One that does not exist is removed already.
    fn remove_tenant(&self, id: TenantId) -> Result<(), ServiceError>;

    /// What a tenant uses; costs one record.
    fn usage(&self, id: TenantId) -> Result<Usage, ServiceError>;

    /// Whether the owner has something under this path that it may share; asked before anybody looks at the grantee.
    fn shareable(&self, owner: TenantId, path: &LogicalPath) -> Result<(), ServiceError>;

    /// Grants a share. Asked again for the same number: changes rights, expiry and limit, and answers where the share is
    /// now, whatever `target` says.
    fn grant(&self, order: &GrantOrder) -> Result<GrantOutcome, ServiceError>;

    /// Takes a share back, durably: refused from the moment this returns at the latest. One that was never granted, or
    /// is revoked already, has an empty receipt or the same again. A hard one has ended the processes when it returns.
    fn revoke(&self, order: &RevokeOrder) -> Result<Receipt, ServiceError>;

    /// Whether a share is (still) in the grantee's tree.
    fn is_injected(&self, grantee: TenantId, id: ShareId) -> Result<bool, ServiceError>;

    /// Removes a share's entry from the grantee's own tree, durably. The path must be the root of the share there.
    fn drop_share(&self, grantee: TenantId, path: &LogicalPath) -> Result<DroppedShare, ServiceError>;

    /// Where a logical path of a tenant really is.
    fn locate(&self, id: TenantId, path: &LogicalPath) -> Result<Located, ServiceError>;

    /// Makes objects of a bucket files of a tenant, without copying anything. Asked again it goes on where it was.
    fn import(
        &self,
        order: &ImportOrder,
        tell: Listener<'_, ImportSummary>,
    ) -> Result<ImportSummary, ServiceError>;

    /// Looks for contradictions in the map of one tenant or of all.
    fn check(&self, id: Option<TenantId>) -> Result<CheckSummary, ServiceError>;
}

/// A mount to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOrder {
    /// Whose namespace.
    pub tenant: TenantId,
    /// The tenant's name: the mount's source is `vmds#<name>`.
    pub tenant_name: String,
    /// Where.
    pub dir: PathBuf,
    /// How.
    pub options: MountFlags,
    /// Whoever owns `dir` must be this uid, looked at on the very directory that is mounted on. `None`: anybody.
    pub dir_owner: Option<u32>,
    /// Writes are charged to a quota of bytes, so they may not bypass the VMDS.
    pub metered: bool,
    /// Memory that the VMDS may use, bytes.
    pub memory: u64,
}

/// How the memory of a VMDS is bounded, as a sentence; an error if it is not, as a sentence that says why.
pub type MemoryBound = Result<String, String>;

/// A mount as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountObserved {
    /// Whose namespace.
    pub tenant: TenantId,
    /// Where.
    pub dir: PathBuf,
    /// The process that answers.
    pub pid: u32,
    /// How many processes have answered so far.
    pub generation: u32,
    /// Requests are being answered.
    pub serving: bool,
    /// Since when this process answers.
    pub since: SystemTime,
    /// Why the last process ended, if it did not end well.
    pub last_error: Option<String>,
    /// The mount is older than this controller, which has taken it over from one before.
    pub taken_over: bool,
    /// Whether the memory of that process is bounded.
    pub memory: MemoryBound,
}

/// The agent: mounts of this node and the processes behind them.
pub trait MountService: Send + Sync + 'static {
    /// Mounts, or answers what is there already for the same tenant (and takes over `metered` and `memory`; other options stay).
    /// Returns when requests are being answered.
    fn mount(&self, order: &MountOrder) -> Result<MountObserved, ServiceError>;

    /// Unmounts; a directory where nothing of ours is mounted is unmounted already. Unless `lazy`, a mount in use is
    /// [`ServiceError::Busy`], naming the processes (number and command).
    fn umount(&self, dir: &Path, lazy: bool) -> Result<(), ServiceError>;

    /// Replaces the VMDS of a mounted tenant by one of the program as it is now; applications notice a pause at most.
    /// Returns when the new one serves. When the new one cannot take over, the old one goes on.
    fn upgrade(&self, tenant: TenantId) -> Result<(), ServiceError>;

    /// All mounts of ours on this node.
    fn observe(&self) -> Vec<MountObserved>;

    /// Unmounts everything and ends every VMDS: the controller is going down.
    fn shutdown(&self);
}

/// A pool as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolObserved {
    /// Its size, where it has one.
    pub bytes_total: Option<u64>,
    /// What is free.
    pub bytes_free: Option<u64>,
    /// What its endpoint can, where it has one.
    pub s3: Option<S3Capabilities>,
    /// What its disk cache holds, where it has one.
    pub disk_cache: Option<DiskCacheStatus>,
}

/// A comparison of a pool with the map that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCheckOrder {
    /// The pool; one in an object store.
    pub id: PoolId,
    /// An object that is younger belongs to something that is under way, and is no orphan.
    pub grace: Duration,
    /// Orphans are noted as what is to be deleted.
    pub repair: bool,
}

/// How far a comparison has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCheckSummary {
    /// Objects looked at, for each of which it was asked whether the map knows it.
    pub objects: u64,
    /// Files looked at, for each of which it was asked whether its object is there.
    pub files: u64,
    /// What was found wrong.
    pub problems: u64,
    /// Orphans that were noted as what is to be deleted.
    pub repaired: u64,
}

/// What can be wrong between a pool and the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolProblemKind {
    /// An object that nothing in the map leads to.
    Orphan,
    /// A file whose object is not there.
    Missing,
    /// A file whose object has another size.
    WrongSize,
    /// A file whose object is another one.
    WrongEtag,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolProblem {
    /// What.
    pub kind: PoolProblemKind,
    /// Whose.
    pub tenant: TenantId,
    /// The object's key in the bucket.
    pub key: String,
    /// The file, and where it is, if that was found out.
    pub file: Option<(Ino, Option<LogicalPath>)>,
    /// Both sizes or ETags, or the object's size: the end of a sentence.
    pub detail: String,
}

/// What a comparison tells while it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolCheckEvent {
    /// It has come this far.
    Progress(PoolCheckSummary),
    /// This was found.
    Problem(PoolProblem),
}

/// Takes what work tells that takes long; answers whether anybody still listens. The work ends when nobody does.
pub type Listener<'a, T> = &'a mut dyn FnMut(T) -> bool;

/// The pools.
pub trait PoolService: Send + Sync + 'static {
    /// Opens a pool for use, or looks at it again.
    fn ensure_pool(&self, id: PoolId, name: &str, spec: &PoolSpec) -> Result<PoolObserved, ServiceError>;

    /// Stops using a pool. Its bytes stay. One that files are in is [`ServiceError::Busy`]; to see that, the whole map is read.
    fn remove_pool(&self, id: PoolId) -> Result<(), ServiceError>;

    /// Compares the objects of a pool with the map, both ways, while both are in use.
    fn check_pool(
        &self,
        order: &PoolCheckOrder,
        tell: Listener<'_, PoolCheckEvent>,
    ) -> Result<PoolCheckSummary, ServiceError>;
}

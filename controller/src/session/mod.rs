//! Sessions: the controller's side of the link to each VMDS.
//!
//! A session belongs to one mount of one tenant and outlives the VMDS processes that serve it. What a session may
//! reach follows from the socket it was made for, never from anything in a frame.
//!
//! `serve` reads frames and sends replies, `scope` decides what a node id may mean, `query`, `mutate` and `files` do
//! what is asked, `repeat` answers what was done before, `coherence` tells others what has changed,
//! `forgery` tells refusals that an honest VMDS may meet from others.

mod addresses;
mod adopted;
mod bringing;
mod cached;
mod coherence;
mod cut;
mod elsewhere;
mod files;
mod forgery;
mod inbox;
mod inflight;
mod mutate;
mod partial;
mod query;
mod recovery;
mod repeat;
mod scope;
mod serve;
mod settle;
mod staging;
mod stored;
mod sync;
#[cfg(test)]
mod tests;
mod written;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use address_map::engine::Committer;
use address_map::error::{MapError, Refusal, Result};
use address_map::ids::{Ino, MountEpoch, NodeId, ShardId, TenantId};
use address_map::map::{AddressMap, Tree};
use address_map::name::Name;
use address_map::namespace::object;
use address_map::namespace::replay;
use address_map::namespace::share;
use address_map::record::{Inode, Layout, ObjectRef};
use address_map::wire::{FrameSocket, SessionOptions, Stale};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::audit::Audit;
use crate::housekeeping;
use crate::lease::{File, LeaseTable};
use crate::metrics::Forgeries;
use crate::pool::Pools;
use crate::pool::s3::{Relays, S3Error};
use crate::share::Grants;
use crate::sweeper::{self, Sweeper};

use adopted::Listings;
pub use coherence::Hub;
use elsewhere::{Elsewhere, Workers};
use forgery::Witness;
use inbox::Inbox;
pub use recovery::Recovery;
use settle::Unsettled;
use staging::Staging;
use sync::LostErrors;

/// A session, within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What a session asks of the agent about its mount: only the agent, which is root, can do it.
pub trait MountControl: Send + Sync + 'static {
    /// Registers a file for passthrough; `None` when this file cannot be passed through.
    fn register(&self, file: BorrowedFd<'_>) -> Option<u32>;
    /// Undoes a registration.
    fn unregister(&self, backing: u32);
    /// Ends the VMDS, which takes every descriptor it has with it; another one takes over.
    fn replace_vmds(&self);
    /// The same, and waits until the VMDS that is there now has ended.
    fn replace_vmds_and_wait(&self) -> Replaced;
}

/// What came of replacing a VMDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The process that was there has ended.
    Done,
    /// There was no process.
    NoProcess,
    /// The process has not ended in time.
    StillThere,
}

/// One mount's conversation with its VMDS.
pub struct Session {
    id: SessionId,
    tree: Tree,
    tenant_name: String,
    options: Mutex<SessionOptions>,
    mount: MountEpoch,
    control: Arc<dyn MountControl>,
    link: Mutex<Option<Arc<FrameSocket>>>,
    /// What has come over the link.
    inbox: Mutex<Option<Arc<Inbox>>>,
    /// Held while the requests of one VMDS are carried out.
    talking: Mutex<()>,
    /// Requests that are carried out elsewhere because they take long.
    elsewhere: Elsewhere,
    /// Turns for having bytes brought to files that it reads.
    fills: Arc<Semaphore>,
    /// Turns for syncing files.
    syncs: Arc<Semaphore>,
    /// Turns for making files much smaller.
    cuts: Arc<Semaphore>,
    /// Its connections to object stores that run through this process.
    relays: Relays,
    witness: Witness,
}

impl Session {
    /// Whose session.
    pub fn tenant(&self) -> TenantId {
        self.tree.tenant()
    }

    /// Its number.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Replaces the VMDS and waits until the one that is there now has ended: nothing it was given survives.
    pub fn replace_vmds_and_wait(&self) -> Replaced {
        self.control.replace_vmds_and_wait()
    }

    /// How its VMDSes serve, from the next one on.
    pub fn options(&self) -> SessionOptions {
        self.options.lock().clone()
    }

    /// Makes its next VMDS serve otherwise.
    pub fn use_options(&self, options: SessionOptions) {
        *self.options.lock() = options;
    }

    /// The mount it is for.
    pub fn mount_epoch(&self) -> MountEpoch {
        self.mount
    }

    /// The shard the tenant lives on.
    pub fn shard(&self) -> ShardId {
        self.tree.shard().id()
    }
}

/// What sessions stand on: the map, the pools, and what is open and granted.
pub struct DataPlane {
    pub(crate) map: AddressMap,
    pub(crate) pools: Pools,
    pub(crate) leases: LeaseTable,
    pub(crate) grants: Grants,
    pub(crate) hub: Hub,
    pub(crate) committer: Committer,
    pub(crate) audit: Audit,
    pub(crate) recovery: Recovery,
    staging: Staging,
    listings: Listings,
    workers: Workers,
    /// Threads that wait for a disk of this machine, apart from those that wait for a network.
    disk_workers: Workers,
    lost_errors: LostErrors,
    /// Turns for bringing to disk caches what nobody has asked for yet.
    ahead: Arc<Semaphore>,
    pub(crate) forgeries: Forgeries,
    sweeper: Sweeper,
    unsettled: Unsettled,
    next_session: AtomicU64,
    /// When this process began to serve: what it has not given out itself is older.
    pub(crate) started: SystemTime,
}

/// Something a change touched, in the tree it was made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// What a name leads to.
    Entry { parent: Ino, name: Name },
    /// Attributes, and contents if `data`.
    Inode { ino: Ino, data: bool },
}

/// What mounts must forget, by session.
pub(crate) type Forgettable = HashMap<SessionId, Vec<Stale>>;

impl DataPlane {
    /// A data plane without sessions, and its threads. What it gives out is noted in `audit`.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        map: AddressMap,
        pools: Pools,
        committer: Committer,
        audit: Audit,
    ) -> std::io::Result<Arc<Self>> {
        let (sweeper, hints) = Sweeper::new();
        let plane = Arc::new(Self {
            map,
            pools,
            leases: LeaseTable::default(),
            grants: Grants::default(),
            hub: Hub::new(),
            committer,
            audit,
            recovery: Recovery::default(),
            staging: Staging::default(),
            listings: Listings::default(),
            workers: Workers::default(),
            disk_workers: Workers::default(),
            lost_errors: LostErrors::default(),
            ahead: Arc::new(Semaphore::new(cached::AHEAD_AT_ONCE)),
            forgeries: Forgeries::default(),
            sweeper,
            unsettled: Unsettled::default(),
            next_session: AtomicU64::new(1),
            started: SystemTime::now(),
        });
        sweeper::start(&plane, hints)?;
        housekeeping::start(&plane)?;
        Ok(plane)
    }

    /// Opens a session for a mount of `tenant`. It ends with [`DataPlane::end_session`].
    pub fn begin_session(
        &self,
        tenant: TenantId,
        tenant_name: &str,
        options: SessionOptions,
        mount: MountEpoch,
        control: Arc<dyn MountControl>,
    ) -> Result<Arc<Session>> {
        let id = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let session = Arc::new(Session {
            id,
            tree: self.map.tree(tenant)?,
            tenant_name: tenant_name.to_owned(),
            options: Mutex::new(options),
            mount,
            control,
            link: Mutex::default(),
            inbox: Mutex::default(),
            talking: Mutex::default(),
            elsewhere: Elsewhere::default(),
            fills: Arc::new(Semaphore::new(elsewhere::FILLS_MAX)),
            syncs: Arc::new(Semaphore::new(elsewhere::TURNS_MAX)),
            cuts: Arc::new(Semaphore::new(elsewhere::TURNS_MAX)),
            relays: Relays::default(),
            witness: Witness::default(),
        });
        self.hub.join(&session);
        Ok(session)
    }

    /// Ends a session whose mount is gone: its leases end, files it was writing are settled, files it kept alive go.
    pub fn end_session(&self, session: &Session) {
        self.hub.leave(session.id);
        for (_, node) in self.leases.held_by(session.id) {
            self.release_lease(session, node);
        }
        if let Err(error) = self.forget_replays(session) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot forget the requests of a mount"
            );
        }
    }

    /// Nothing is repeated for a mount that is gone.
    fn forget_replays(&self, session: &Session) -> Result<()> {
        let owners =
            share::injections(&session.tree.view())?.into_iter().map(|(_, injection)| injection.owner);
        for tenant in owners.chain([session.tenant()]).collect::<BTreeSet<_>>() {
            // An owner that is being deleted takes its records along.
            if let Ok(tree) = self.map.tree(tenant) {
                tree.write(|txn| replay::forget(txn, session.mount))?;
            }
        }
        Ok(())
    }

    /// Ends a session's lease on a file. It is found by what was held, not by what may be held: the share it was seen
    /// through may be gone.
    pub(crate) fn release_lease(&self, session: &Session, node: NodeId) {
        let Some((file, hold)) = self.leases.release((session.id, node)) else { return };
        if let Some(backing) = hold.backing {
            session.control.unregister(backing);
        }
        let (tenant, ino) = file;
        let outcome = self.map.tree(tenant).and_then(|tree| {
            if hold.write && !self.leases.is_written(file) && !self.store_when_closed(&tree, ino)? {
                match self.settle_or_later(&tree, ino) {
                    Err(MapError::Refused(Refusal::NotFound)) | Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
            let gone = tree.write(|txn| match self.leases.is_held(file) {
                true => Ok(None),
                false => object::purge_orphan(txn, ino),
            })?;
            if let Some(inode) = gone {
                self.removed_for_good(&tree, ino, &inode);
            }
            Ok(())
        });
        if let Err(error) = outcome {
            tracing::error!(%tenant, %ino, error = &error as &dyn std::error::Error, "cannot close a file properly");
        }
    }

    /// Deletes unlinked files that nobody has open: after a restart, those that somebody had open before it.
    pub(crate) fn purge_orphans(&self, tree: &Tree) -> Result<()> {
        self.recovery.wait();
        let orphans = object::orphans(&tree.view())?;
        for ino in &orphans {
            tree.write(|txn| match self.leases.is_held((tree.tenant(), *ino)) {
                true => Ok(None),
                false => object::purge_orphan(txn, *ino),
            })?;
        }
        Ok(())
    }

    /// An object that is noted as what is to be deleted can be deleted now.
    pub(crate) fn delete_soon(&self, tenant: TenantId, object: ObjectRef) {
        self.sweeper.hint(tenant, object);
    }

    /// An inode has been removed for good: its backing file can go. Of an object store only what was being written has
    /// one; an object goes later, when nobody can be reading it any more.
    pub(crate) fn removed_for_good(&self, tree: &Tree, ino: Ino, inode: &Inode) {
        self.staging.forget((tree.tenant(), ino));
        if let Some(cache) = self.store_of(inode).and_then(|(_, _, store)| store.cache) {
            cache.remove((tree.tenant(), ino));
        }
        let has_one = inode.dirty || matches!(inode.layout, Layout::Object(_));
        if let (true, Some(object)) = (has_one, backing_file((tree.tenant(), ino), inode)) {
            self.sweeper.hint(tree.tenant(), object);
        }
    }
}

/// The backing file of an inode: of one in an object store, the one it has while it is being written.
pub(crate) fn backing_file(file: File, inode: &Inode) -> Option<ObjectRef> {
    match &inode.layout {
        Layout::Object(object) => Some(object.clone()),
        other => other.pool().map(|pool| object::address(file.0, pool, file.1)),
    }
}

/// A failure of a pool, as an application sees it. The cause goes to the log.
pub(crate) fn io_refusal(error: std::io::Error) -> MapError {
    use rustix::io::Errno;
    use std::io::ErrorKind;
    let of_store = || Some(error.get_ref()?.downcast_ref::<S3Error>()?.errno());
    // By its kind, too: not all that an object store says is an error of a system call.
    let refusal = match (error.kind(), Errno::from_io_error(&error).or_else(of_store)) {
        (_, Some(Errno::STALE)) => Refusal::Stale,
        (ErrorKind::StorageFull, _) => Refusal::NoSpace,
        (ErrorKind::QuotaExceeded, _) => Refusal::Quota,
        (ErrorKind::FileTooLarge, _) => Refusal::TooLarge,
        (_, Some(Errno::MFILE | Errno::NFILE)) => Refusal::Busy,
        _ => Refusal::Io,
    };
    tracing::error!(error = &error as &dyn std::error::Error, "the pool failed");
    MapError::Refused(refusal)
}

//! The agent: what must be done as root on the node. It mounts, keeps the connection to the kernel for the life of
//! the mount, starts and replaces VMDSes, and registers files for passthrough. It never looks at tenants' bytes.

mod cgroup;
mod connections;
mod device;
mod health;
mod holders;
mod memory;
mod mountpoint;
mod pace;
mod passthrough;
mod record;
mod server;
mod spawn;
mod supervise;
mod table;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use address_map::ids::{MountEpoch, ShardId, TenantId};
use address_map::wire::SessionOptions;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::logging::chain;
use crate::services::{MountObserved, MountOrder, MountService, ServiceError};
use crate::session::{DataPlane, Session};
use cgroup::Parent;
use memory::{Bound, session_options};
use passthrough::Control;
use record::{MountRecord, Records};
use server::Server;
use supervise::{Parts, StartError, TenantMount};
use table::{Claim, Table};

/// VMDSes run as this uid plus the tenant's number: far from the users of any directory service.
const VMDS_UID_BASE: u32 = 1_900_000_000;
/// See the module.
pub struct Agent {
    plane: Arc<DataPlane>,
    program: PathBuf,
    records: Arc<Records>,
    mounts: Table,
    /// Why mounts were given up, by tenant, until they are made anew.
    given_up: Mutex<HashMap<TenantId, String>>,
    /// Where the memory of VMDSes is bounded, or why it cannot be.
    groups: Result<Parent, String>,
}

impl Agent {
    /// An agent that starts `program` as VMDS and remembers its mounts in `run_dir`. Mounts left by a predecessor are
    /// taken over if their VMDSes live, and taken away if not.
    pub fn new(plane: Arc<DataPlane>, program: PathBuf, run_dir: &Path) -> io::Result<Arc<Self>> {
        let records = Arc::new(Records::open(run_dir.join("mounts"))?);
        let groups = Parent::find().map_err(|error| error.to_string());
        if let Err(why) = &groups {
            tracing::warn!(why, "the memory of VMDSes cannot be bounded by control groups");
        }
        let (mounts, given_up) = (Table::default(), Mutex::default());
        let agent = Self { plane, program, records, mounts, given_up, groups };
        for (path, record) in agent.records.all()? {
            match record {
                Ok(record) => agent.take_over(&record),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot read what is known of a mount");
                    record::remove(&path);
                }
            }
        }
        let agent = Arc::new(agent);
        health::start(&agent)?;
        Ok(agent)
    }

    /// Goes on with a mount of a predecessor, or cleans up after it.
    fn take_over(&self, record: &MountRecord) {
        let tenant = &record.tenant_name;
        match self.adopt(record) {
            Ok(mount) => {
                tracing::info!(%tenant, pid = record.pid, "took over a mount");
                if let Some(claim) = self.mounts.claim(TenantId(record.tenant)) {
                    claim.insert(mount);
                }
            }
            Err(error) => {
                tracing::warn!(%tenant, error = %chain(&*error), "cannot take over a mount; taking it away");
                for dir in record.directories() {
                    if let Err(error) = detach_vmds(&dir) {
                        tracing::error!(dir = %dir.display(), %error, "cannot unmount");
                    }
                }
                if let Ok(groups) = &self.groups {
                    groups.forget(MountEpoch(record.epoch));
                }
                self.records.remove(record.tenant);
            }
        }
    }

    fn adopt(&self, record: &MountRecord) -> Result<Arc<TenantMount>, Box<dyn std::error::Error>> {
        let tenant = TenantId(record.tenant);
        self.plane.map.route(tenant, ShardId(record.shard))?;
        let (server, device, link) = Server::adopt(record.pid, record.started)?;
        let device = Arc::new(device);
        let control = Arc::new(Control::new(device.clone()));
        let options = self.session_options(record.memory, record.metered);
        let epoch = MountEpoch(record.epoch);
        let bound = Arc::new(Bound::new(&self.groups, epoch, record.memory));
        bound.take_in(record.pid);
        let session =
            self.plane.begin_session(tenant, &record.tenant_name, options, epoch, control.clone())?;
        session.outlived_its_controller();
        self.plane.recovery.expect(session.id());
        let parts = self.parts(tenant, &record.tenant_name, &session, device, record.device_number, bound);
        let parts = Parts { init_request: record.init_request.clone(), ..parts };
        let mount = TenantMount::adopt(parts, server, link, record.generation, record.init_reply.clone());
        let mount = mount.inspect_err(|_| self.plane.end_session(&session))?;
        *mount.dirs.lock() = record.directories();
        control.is_for(&mount);
        self.remember(tenant, &mount);
        Ok(mount)
    }

    fn session_options(&self, memory: u64, metered: bool) -> SessionOptions {
        session_options(memory, metered, self.plane.pools.patience())
    }

    /// What a mount is made of, but for the kernel's first request.
    fn parts(
        &self,
        tenant: TenantId,
        name: &str,
        session: &Arc<Session>,
        device: Arc<OwnedFd>,
        device_number: u64,
        memory: Arc<Bound>,
    ) -> Parts {
        let records = self.records.clone();
        Parts {
            plane: self.plane.clone(),
            session: session.clone(),
            tenant_name: name.to_owned(),
            program: self.program.clone(),
            uid: VMDS_UID_BASE + tenant.0,
            device,
            device_number,
            init_request: Vec::new(),
            memory,
            on_change: Box::new(move |mount| write_record(&records, tenant, mount)),
        }
    }

    fn remember(&self, tenant: TenantId, mount: &TenantMount) {
        write_record(&self.records, tenant, mount);
    }

    fn mount_on(&self, order: &MountOrder) -> Result<Arc<TenantMount>, ServiceError> {
        let claim = self.claim(order.tenant)?;
        self.notice_unmounted(&claim, order.tenant);
        if let Some(mount) = claim.mount() {
            self.adjust(&mount, order);
            if mount.dirs.lock().contains(&order.dir) {
                mountpoint::change(&order.dir, mount.device_number(), &order.options)
                    .map_err(|error| cannot_change(order, &error))?;
            } else {
                self.bind(&mount, order)?;
            }
            return Ok(mount);
        }
        let target = MountPoint::open(order)?;
        let mount = self.first_mount(order, &target)?;
        claim.insert(mount.clone());
        Ok(mount)
    }

    /// Takes over what is wanted of a mount that is there already. Caches and metering are a new VMDS's.
    fn adjust(&self, mount: &Arc<TenantMount>, order: &MountOrder) {
        let options = self.session_options(order.memory, order.metered);
        if mount.memory().bytes() != order.memory {
            mount.memory().resize(order.memory);
        } else if mount.session().options() == options {
            return;
        }
        mount.session().use_options(options);
        if let Err(error) = mount.upgrade() {
            tracing::warn!(tenant = %order.tenant_name, error = %chain(&error), "the VMDS goes on as it was");
        }
    }

    fn claim(&self, tenant: TenantId) -> Result<Claim<'_>, ServiceError> {
        self.mounts.claim(tenant).ok_or_else(|| {
            ServiceError::Unavailable(
                "somebody else is mounting or unmounting the tenant just now; try again".into(),
            )
        })
    }

    /// All mounts.
    fn all_mounts(&self) -> Vec<Arc<TenantMount>> {
        self.mounts.all().into_iter().map(|(_, mount)| mount).collect()
    }

    /// A mount whose connection to the kernel has been ended: it is cleaned up, and made anew by whoever wants it.
    fn abandon(&self, mount: &Arc<TenantMount>) {
        let tenant = mount.session().tenant();
        // Whoever has it is mounting or unmounting it; the next look comes soon.
        let Some(claim) = self.mounts.claim(tenant) else { return };
        if !claim.mount().is_some_and(|current| Arc::ptr_eq(&current, mount)) {
            return;
        }
        mount.expect_end();
        for dir in mount.dirs.lock().drain(..) {
            if let Err(error) = detach_vmds(&dir) {
                tracing::error!(dir = %dir.display(), %error, "cannot unmount");
            }
        }
        let why = "no VMDS answered; the connection was ended and programs that waited got errors";
        self.given_up.lock().insert(tenant, why.to_owned());
        self.records.remove(tenant.0);
        claim.remove();
        mount.kill();
        self.end(mount.clone(), true);
    }

    /// Forgets the directories of a tenant that somebody else has unmounted.
    fn notice_unmounted(&self, claim: &Claim<'_>, tenant: TenantId) {
        let Some(mount) = claim.mount() else { return };
        let places = mountpoint::Places::now();
        mount.dirs.lock().retain(|dir| places.has(dir, mount.device_number()));
        if mount.is_over() {
            claim.remove();
            self.records.remove(tenant.0);
            self.end(mount, false);
        }
    }

    /// Another directory of a tenant that is mounted already shows the same file system: one cache, one VMDS.
    fn bind(&self, mount: &TenantMount, order: &MountOrder) -> Result<(), ServiceError> {
        let target = MountPoint::open(order)?;
        let source = mount.dirs.lock().first().cloned().ok_or_else(|| going_away(order))?;
        mountpoint::bind(&source, mount.device_number(), &target.directory, &order.options)
            .map_err(|error| cannot_mount(order, &error))?;
        mount.dirs.lock().push(order.dir.clone());
        self.remember(order.tenant, mount);
        Ok(())
    }

    fn first_mount(&self, order: &MountOrder, target: &MountPoint) -> Result<Arc<TenantMount>, ServiceError> {
        let device = Arc::new(device::open().map_err(|error| {
            ServiceError::Unavailable(format!("/dev/fuse cannot be opened ({error}); load the fuse module"))
        })?);
        let control = Arc::new(Control::new(device.clone()));
        let options = self.session_options(order.memory, order.metered);
        let epoch = random_epoch().map_err(internal)?;
        let bound = Arc::new(Bound::new(&self.groups, epoch, order.memory));
        let session =
            self.plane.begin_session(order.tenant, &order.tenant_name, options, epoch, control.clone());
        let session = session.map_err(|error| {
            bound.remove();
            ServiceError::Internal(Box::new(error))
        })?;
        let mounted = mountpoint::mount(&device, &order.tenant_name, &target.directory, &order.options)
            .map_err(|error| cannot_mount(order, &error))
            .and_then(|number| {
                let init_request = device::read_init(&device).map_err(internal)?;
                let memory = bound.clone();
                let parts = self.parts(order.tenant, &order.tenant_name, &session, device, number, memory);
                TenantMount::start(Parts { init_request, ..parts })
                    .map_err(|error| ServiceError::Unavailable(chain(&error)))
            });
        match mounted {
            Ok(mount) => {
                control.is_for(&mount);
                if let Some(why) = self.given_up.lock().remove(&order.tenant) {
                    mount.note(why);
                }
                mount.dirs.lock().push(order.dir.clone());
                self.remember(order.tenant, &mount);
                mountpoint::raise_read_ahead(&order.dir);
                Ok(mount)
            }
            Err(error) => {
                let _ = detach_vmds(&order.dir);
                self.records.remove(order.tenant.0);
                self.plane.end_session(&session);
                bound.remove();
                Err(error)
            }
        }
    }

    /// The last directory is gone. A file system detached while in use serves its last users from the background.
    fn end(&self, mount: Arc<TenantMount>, lazy: bool) {
        let plane = self.plane.clone();
        if !lazy {
            mount.make_end();
            mount.memory().remove();
            return plane.end_session(mount.session());
        }
        let waiter = std::thread::Builder::new().name("vmds-detached".into()).spawn(move || {
            mount.wait_ended();
            mount.memory().remove();
            plane.end_session(mount.session());
        });
        if let Err(error) = waiter {
            tracing::error!(%error, "cannot wait for a detached mount; what it has open stays open");
        }
    }
}

impl MountService for Agent {
    fn mount(&self, order: &MountOrder) -> Result<MountObserved, ServiceError> {
        let mount = self.mount_on(order)?;
        Ok(observed(order.tenant, &order.dir, &mount))
    }

    fn umount(&self, dir: &Path, lazy: bool) -> Result<(), ServiceError> {
        let Some(tenant) = self.mounts.on(dir) else { return Ok(()) };
        let claim = self.claim(tenant)?;
        let Some(mount) = claim.mount() else { return Ok(()) };
        // Nobody else changes them, and whoever wants to see them does not wait for the kernel.
        let left = mount.dirs.lock().iter().filter(|d| *d != dir).count();
        let last = left == 0;
        if last {
            mount.expect_end();
        }
        match mountpoint::unmount(dir, lazy) {
            // Not mounted (any more): somebody else has unmounted it.
            Ok(()) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {}
            Err(error) => {
                if last {
                    mount.go_on();
                }
                return Err(busy(dir, &error));
            }
        }
        mount.dirs.lock().retain(|d| d != dir);
        if last {
            claim.remove();
            drop(claim);
            self.records.remove(tenant.0);
            self.end(mount, lazy);
        } else {
            (mount.on_change())(&mount);
        }
        Ok(())
    }

    fn upgrade(&self, tenant: TenantId) -> Result<(), ServiceError> {
        let mount = self.mounts.get(tenant).ok_or_else(|| {
            ServiceError::NotFound(
                "the tenant is not mounted on this node; there is nothing to replace".into(),
            )
        })?;
        mount.upgrade().map_err(|error| {
            let sentence = chain(&error);
            match error {
                StartError::OtherTerms => ServiceError::Conflict(format!(
                    "{sentence} to have the new one; until then the one before goes on"
                )),
                StartError::Start { .. } | StartError::Handshake(_) => {
                    ServiceError::Unavailable(format!("{sentence}; the one before goes on"))
                }
                StartError::Late | StartError::Ending => ServiceError::Unavailable(sentence),
            }
        })
    }

    fn observe(&self) -> Vec<MountObserved> {
        let places = mountpoint::Places::now();
        let mut seen = Vec::new();
        for (tenant, mount) in self.mounts.all() {
            let dirs = mount.dirs.lock();
            let there = dirs.iter().filter(|dir| places.has(dir, mount.device_number()));
            seen.extend(there.map(|dir| observed(tenant, dir, &mount)));
        }
        seen
    }

    fn shutdown(&self) {
        let (tenants, mounts) = self.mounts.drain();
        for mount in &mounts {
            mount.expect_end();
            for dir in mount.dirs.lock().drain(..) {
                if let Err(error) = detach_vmds(&dir) {
                    tracing::error!(dir = %dir.display(), %error, "cannot unmount");
                }
            }
        }
        // From here on there is nothing for a successor to take over.
        for tenant in tenants {
            self.records.remove(tenant.0);
        }
        // Whoever still has files open there keeps the file system; without its VMDS it answers nothing any more.
        for mount in mounts {
            mount.kill();
            self.end(mount, false);
        }
    }
}

fn random_epoch() -> io::Result<MountEpoch> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(MountEpoch(u64::from_le_bytes(bytes)))
}

/// Writes down what a successor of this agent needs. Without it the mount cannot be taken over, but it works.
fn write_record(records: &Records, tenant: TenantId, mount: &TenantMount) {
    let (init_request, Some(init_reply)) = mount.init() else { return };
    let observed = mount.observe();
    let session = mount.session();
    let record = MountRecord {
        tenant: tenant.0,
        tenant_name: mount.tenant_name().to_owned(),
        shard: session.shard().0,
        epoch: session.mount_epoch().0,
        metered: session.options().metered,
        memory: mount.memory().bytes(),
        dirs: mount.dirs.lock().iter().map(|dir| mountpoint::escaped(dir)).collect(),
        device_number: mount.device_number(),
        init_request: init_request.to_vec(),
        init_reply: init_reply.to_vec(),
        pid: observed.pid,
        started: mount.process_started(),
        generation: observed.generation,
    };
    if let Err(error) = records.put(&record) {
        tracing::error!(tenant = %mount.tenant_name(), %error, "cannot write down a mount");
    }
}

/// A directory to mount on, held open: what was checked is what is mounted on.
struct MountPoint {
    directory: std::os::fd::OwnedFd,
}

impl MountPoint {
    fn open(order: &MountOrder) -> Result<Self, ServiceError> {
        let dir = order.dir.display();
        let canonical = std::fs::canonicalize(&order.dir).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ServiceError::Invalid(format!(
                "the mount point {dir} does not exist; make the directory first"
            )),
            _ => ServiceError::Invalid(format!("the mount point {dir} cannot be used: {error}")),
        });
        // A mount whose VMDS died with its agent answers nothing, not even this.
        let canonical = match canonical {
            Err(_) if mountpoint::on(&order.dir).is_ok_and(|m| m.first().is_some_and(|m| m.is_vmds())) => {
                detach_vmds(&order.dir).map_err(internal)?;
                std::fs::canonicalize(&order.dir).map_err(internal)?
            }
            other => other?,
        };
        if canonical != order.dir {
            let real = canonical.display();
            return Err(ServiceError::Invalid(format!(
                "the mount point {dir} is really {real}; name it like that"
            )));
        }
        if let Some(there) = mountpoint::on(&order.dir).map_err(internal)?.first()
            && there.is_vmds()
        {
            return Err(ServiceError::Conflict(format!(
                "a VMDS file system is mounted on {dir} already; unmount it or choose another directory"
            )));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&order.dir, flags, Mode::empty())
            .map_err(|_| ServiceError::Invalid(format!("the mount point {dir} is not a directory")))?;
        let point = Self { directory };
        let owner = rustix::fs::fstat(&point.directory).map_err(|error| internal(error.into()))?.st_uid;
        match order.dir_owner {
            Some(uid) if uid != owner => Err(ServiceError::Invalid(format!(
                "the mount point {dir} belongs to another user; choose a directory of your own"
            ))),
            _ => Ok(point),
        }
    }
}

/// Takes away every VMDS file system mounted on a directory.
fn detach_vmds(dir: &Path) -> io::Result<()> {
    for mount in mountpoint::on(dir)? {
        if !mount.is_vmds() {
            break;
        }
        mountpoint::unmount(dir, true)?;
    }
    Ok(())
}

fn observed(tenant: TenantId, dir: &Path, mount: &TenantMount) -> MountObserved {
    let supervise::Observed { pid, generation, serving, since, last_error, taken_over } = mount.observe();
    let (dir, memory) = (dir.to_owned(), mount.memory().describe());
    MountObserved { tenant, dir, pid, generation, serving, since, last_error, taken_over, memory }
}

fn busy(dir: &Path, error: &io::Error) -> ServiceError {
    let holders = mountpoint::on(dir).ok().and_then(|m| m.first().map(holders::of)).unwrap_or_default();
    let dir = dir.display();
    if Errno::from_io_error(error) != Some(Errno::BUSY) {
        return ServiceError::Unavailable(format!("{dir} cannot be unmounted: {error}"));
    }
    let by = if holders.is_empty() { "something".to_owned() } else { holders.join(", ") };
    ServiceError::Busy(format!("{dir} is in use by {by}; end that, or unmount with --lazy"))
}

fn going_away(order: &MountOrder) -> ServiceError {
    ServiceError::Unavailable(format!("tenant {} is being unmounted just now; try again", order.tenant_name))
}

fn cannot_mount(order: &MountOrder, error: &io::Error) -> ServiceError {
    ServiceError::Unavailable(format!("cannot mount on {}: {error}", order.dir.display()))
}

fn cannot_change(order: &MountOrder, error: &io::Error) -> ServiceError {
    let dir = order.dir.display();
    match Errno::from_io_error(error) {
        Some(Errno::BUSY) => {
            ServiceError::Busy(format!("{dir} cannot become read-only: files on it are open for writing"))
        }
        _ => ServiceError::Unavailable(format!("the options of {dir} cannot be changed: {error}")),
    }
}

fn internal(error: io::Error) -> ServiceError {
    ServiceError::Internal(Box::new(error))
}

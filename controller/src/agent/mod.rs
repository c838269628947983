//! The agent: what must be done as root on the node. It mounts, keeps the connection to the kernel for the life of
//! the mount, starts and replaces VMDSes, and registers files for passthrough. It never looks at tenants' bytes.

mod device;
mod holders;
mod mountpoint;
mod passthrough;
mod spawn;
mod supervise;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use address_map::ids::TenantId;
use address_map::wire::SessionOptions;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::logging::chain;
use crate::services::{MountObserved, MountOrder, MountService, ServiceError};
use crate::session::DataPlane;
use passthrough::Registrar;
use supervise::{Parts, TenantMount};

/// VMDSes run as this uid plus the tenant's number: far from the users of any directory service.
const VMDS_UID_BASE: u32 = 1_900_000_000;
/// How long the kernel may keep what it knows of a tenant's own tree: changes by others are pushed.
const TTL_MS: u64 = 3_600_000;
/// Attributes and entries kept by a VMDS.
const VMDS_CACHE_ENTRIES: u32 = 65_536;
/// Descriptors kept by a VMDS.
const VMDS_LEASES_MAX: u32 = 4096;

/// See the module.
pub struct Agent {
    plane: Arc<DataPlane>,
    program: PathBuf,
    /// One file per mount point, so that a successor of a killed agent knows what to clean up.
    records: PathBuf,
    mounts: Mutex<HashMap<TenantId, Arc<TenantMount>>>,
}

impl Agent {
    /// An agent that starts `program` as VMDS and remembers its mounts in `run_dir`. Mounts left by a predecessor are
    /// taken away.
    pub fn new(plane: Arc<DataPlane>, program: PathBuf, run_dir: &Path) -> io::Result<Self> {
        let records = run_dir.join("mounts");
        std::fs::create_dir_all(&records)?;
        let agent = Self { plane, program, records, mounts: Mutex::default() };
        agent.clean_up()?;
        Ok(agent)
    }

    fn clean_up(&self) -> io::Result<()> {
        for record in std::fs::read_dir(&self.records)? {
            let record = record?;
            if let Some(dir) = mountpoint::unescaped(&record.file_name()) {
                detach_vmds(&dir)?;
            }
            std::fs::remove_file(record.path())?;
        }
        Ok(())
    }

    fn remember(&self, dir: &Path) -> io::Result<()> {
        std::fs::write(self.records.join(mountpoint::escaped(dir)), b"")
    }

    fn forget(&self, dir: &Path) {
        if let Err(error) = std::fs::remove_file(self.records.join(mountpoint::escaped(dir)))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "cannot forget a mount");
        }
    }

    fn mount_on(&self, order: &MountOrder) -> Result<Arc<TenantMount>, ServiceError> {
        let mut mounts = self.mounts.lock();
        if let Some(mount) = mounts.get(&order.tenant) {
            let mount = mount.clone();
            if !mount.dirs.lock().contains(&order.dir) {
                self.bind(&mount, order)?;
            }
            return Ok(mount);
        }
        let target = MountPoint::open(order)?;
        let mount = self.first_mount(order, &target)?;
        mounts.insert(order.tenant, mount.clone());
        Ok(mount)
    }

    /// Another directory of a tenant that is mounted already shows the same file system: one cache, one VMDS.
    fn bind(&self, mount: &TenantMount, order: &MountOrder) -> Result<(), ServiceError> {
        let target = MountPoint::open(order)?;
        let mut dirs = mount.dirs.lock();
        let source = dirs.first().ok_or_else(|| going_away(order))?;
        self.remember(&order.dir).map_err(internal)?;
        mountpoint::bind(source, mount.device_number(), &target.directory, &order.options)
            .map_err(|error| cannot_mount(order, &error))?;
        dirs.push(order.dir.clone());
        Ok(())
    }

    fn first_mount(&self, order: &MountOrder, target: &MountPoint) -> Result<Arc<TenantMount>, ServiceError> {
        let device = Arc::new(device::open().map_err(|error| {
            ServiceError::Unavailable(format!("/dev/fuse cannot be opened ({error}); load the fuse module"))
        })?);
        let options = SessionOptions {
            ttl_ms: TTL_MS,
            cache_entries: VMDS_CACHE_ENTRIES,
            leases_max: VMDS_LEASES_MAX,
            metered: order.metered,
        };
        let registrar = Arc::new(Registrar::new(device.clone()));
        let session = self.plane.begin_session(order.tenant, &order.tenant_name, options, registrar);
        let session = session.map_err(|error| ServiceError::Internal(Box::new(error)))?;
        self.remember(&order.dir).map_err(internal)?;
        let mounted = mountpoint::mount(&device, &order.tenant_name, &target.directory, &order.options)
            .map_err(|error| cannot_mount(order, &error))
            .and_then(|device_number| {
                let parts = Parts {
                    plane: self.plane.clone(),
                    session: session.clone(),
                    tenant_name: order.tenant_name.clone(),
                    program: self.program.clone(),
                    uid: VMDS_UID_BASE + order.tenant.0,
                    init_request: device::read_init(&device).map_err(internal)?,
                    device,
                    device_number,
                };
                TenantMount::start(parts).map_err(|error| ServiceError::Unavailable(chain(&error)))
            });
        match mounted {
            Ok(mount) => {
                mount.dirs.lock().push(order.dir.clone());
                mountpoint::raise_read_ahead(&order.dir);
                Ok(mount)
            }
            Err(error) => {
                let _ = detach_vmds(&order.dir);
                self.forget(&order.dir);
                self.plane.end_session(&session);
                Err(error)
            }
        }
    }

    /// The last directory is gone. A file system detached while in use serves its last users from the background.
    fn end(&self, mount: Arc<TenantMount>, lazy: bool) {
        let plane = self.plane.clone();
        if !lazy {
            mount.make_end();
            return plane.end_session(mount.session());
        }
        let waiter = std::thread::Builder::new().name("vmds-detached".into()).spawn(move || {
            mount.wait_ended();
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
        let mut mounts = self.mounts.lock();
        let Some((tenant, mount)) =
            mounts.iter().find(|(_, mount)| mount.dirs.lock().iter().any(|d| d == dir))
        else {
            return Ok(());
        };
        let (tenant, mount) = (*tenant, mount.clone());
        let mut dirs = mount.dirs.lock();
        let last = dirs.len() == 1;
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
        dirs.retain(|d| d != dir);
        drop(dirs);
        self.forget(dir);
        if last {
            mounts.remove(&tenant);
            drop(mounts);
            self.end(mount, lazy);
        }
        Ok(())
    }

    fn observe(&self) -> Vec<MountObserved> {
        let mounts = self.mounts.lock();
        let mut seen = Vec::new();
        for (tenant, mount) in mounts.iter() {
            seen.extend(mount.dirs.lock().iter().map(|dir| observed(*tenant, dir, mount)));
        }
        seen
    }

    fn shutdown(&self) {
        let mounts: Vec<_> = self.mounts.lock().drain().map(|(_, mount)| mount).collect();
        for mount in &mounts {
            mount.expect_end();
            for dir in mount.dirs.lock().drain(..) {
                if let Err(error) = detach_vmds(&dir) {
                    tracing::error!(dir = %dir.display(), %error, "cannot unmount");
                }
                self.forget(&dir);
            }
        }
        // Whoever still has files open there keeps the file system; without its VMDS it answers nothing any more.
        for mount in mounts {
            mount.cut_off();
            self.end(mount, false);
        }
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
    let supervise::Observed { pid, generation, serving, since, last_error } = mount.observe();
    MountObserved { tenant, dir: dir.to_owned(), pid, generation, serving, since, last_error }
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

fn internal(error: io::Error) -> ServiceError {
    ServiceError::Internal(Box::new(error))
}

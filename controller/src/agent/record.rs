//! What the agent remembers of a mount outside of its own memory: enough for a successor to take the mount over, or
//! to clean up after it. One file per tenant in the run directory, replaced whole.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mountpoint;
use crate::resource::MEMORY_DEFAULT;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MountRecord {
    /// Number of the tenant.
    pub tenant: u32,
    /// Its name.
    pub tenant_name: String,
    /// The shard it lives on.
    pub shard: u16,
    /// The mount, among all mounts ever.
    pub epoch: u64,
    /// Writes are charged to a quota.
    pub metered: bool,
    /// Memory that its VMDS may use, bytes.
    #[serde(default = "memory_default")]
    pub memory: u64,
    /// The directories it is mounted on, escaped.
    pub dirs: Vec<String>,
    /// Device number of the file system.
    pub device_number: u64,
    /// The kernel's first request.
    pub init_request: Vec<u8>,
    /// The reply to it.
    pub init_reply: Vec<u8>,
    /// The VMDS.
    pub pid: u32,
    /// When it was started, in the kernel's ticks.
    pub started: u64,
    /// How many VMDSes there have been.
    pub generation: u32,
}

/// What holds for a mount written down before there was a bound.
fn memory_default() -> u64 {
    MEMORY_DEFAULT
}

impl MountRecord {
    /// The directories.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        self.dirs.iter().filter_map(|dir| mountpoint::unescaped(dir.as_ref())).collect()
    }
}

/// The directory with all records.
pub(super) struct Records {
    dir: PathBuf,
}

impl Records {
    /// Records kept in `dir`, which is made.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Self { dir })
    }

    /// All records; what cannot be read is answered as an error, with its file.
    pub(super) fn all(&self) -> io::Result<Vec<(PathBuf, io::Result<MountRecord>)>> {
        let mut found = Vec::new();
        for file in std::fs::read_dir(&self.dir)? {
            let path = file?.path();
            let record = std::fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
            found.push((path, record));
        }
        Ok(found)
    }

    /// Writes a record.
    pub(super) fn put(&self, record: &MountRecord) -> io::Result<()> {
        let path = self.path(record.tenant);
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(record)?)?;
        std::fs::rename(new, path)
    }

    /// Removes a record; there need not be one.
    pub(super) fn remove(&self, tenant: u32) {
        remove(&self.path(tenant));
    }

    fn path(&self, tenant: u32) -> PathBuf {
        self.dir.join(format!("{tenant}.json"))
    }
}

/// Removes a record's file.
pub(super) fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot forget a mount");
        }
        _ => {}
    }
}

//! Mount points: `mount(2)` and what `/proc/self/mountinfo` says.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags as Flags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};

use crate::resource::MountFlags;

/// The type under which mounts show up.
const FILE_SYSTEM_TYPE: &str = "fuse.vmds";

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountInfo {
    /// The kernel's number of the mount.
    pub id: u64,
    /// Device number as `major:minor`.
    pub device: String,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// File system type.
    pub kind: String,
}

impl MountInfo {
    pub(super) fn is_vmds(&self) -> bool {
        self.kind == FILE_SYSTEM_TYPE
    }
}

/// All mounts this process sees, in the order they were made.
pub(super) fn all() -> io::Result<Vec<MountInfo>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Which file system is mounted where.
pub(super) struct Places(Option<HashSet<(PathBuf, String)>>);

impl Places {
    /// As it is now.
    pub(super) fn now() -> Self {
        match all() {
            Ok(mounts) => Self(Some(mounts.into_iter().map(|mount| (mount.dir, mount.device)).collect())),
            Err(error) => {
                tracing::warn!(%error, "cannot see what is mounted; taking it for unchanged");
                Self(None)
            }
        }
    }

    /// Whether the file system `device` is mounted on a directory.
    pub(super) fn has(&self, dir: &Path, device: u64) -> bool {
        let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        self.0.as_ref().is_none_or(|places| places.contains(&(dir.to_owned(), device)))
    }
}

/// What is mounted on a directory, topmost first.
pub(super) fn on(dir: &Path) -> io::Result<Vec<MountInfo>> {
    Ok(all()?.into_iter().rev().filter(|mount| mount.dir == dir).collect())
}

fn parse(text: &[u8]) -> Vec<MountInfo> {
    let parse_line = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        let separator = fields.iter().position(|field| *field == b"-")?;
        Some(MountInfo {
            id: std::str::from_utf8(fields.first()?).ok()?.parse().ok()?,
            device: String::from_utf8_lossy(fields.get(2)?).into_owned(),
            dir: unescape(fields.get(4)?).into(),
            kind: String::from_utf8_lossy(fields.get(separator + 1)?).into_owned(),
        })
    };
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// Mounts a FUSE connection on the directory `target`. Answers the file system's device number.
pub(super) fn mount(
    device: &OwnedFd,
    tenant: &str,
    target: &OwnedFd,
    options: &MountFlags,
) -> io::Result<u64> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [
        ("source", format!("vmds#{tenant}")),
        ("subtype", "vmds".to_owned()),
        ("fd", device.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", "0".to_owned()),
        ("group_id", "0".to_owned()),
    ] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, "default_permissions")?;
    fsconfig_set_flag(&context, "allow_other")?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(options))?;
    attach(&mount, target)?;
    device_number(&mount)
}

/// Shows the file system mounted at `source` on the directory `target` too. What is there must be `device`: a path can
/// be made to lead elsewhere.
pub(super) fn bind(source: &Path, device: u64, target: &OwnedFd, options: &MountFlags) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, source, flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)?;
    if device_number(&mount)? != device {
        return Err(Errno::XDEV.into());
    }
    attach(&mount, target)?;
    let restricted = set_options(&mount, options);
    if restricted.is_err() {
        // It was attached a moment ago; the caller sees why its options could not be had.
        let _ = rustix::mount::unmount(path_of(&mount), UnmountFlags::DETACH);
    }
    restricted
}

/// Changes the options of the mount point `dir`, also while it is in use. What is mounted there must be `device`.
/// Nothing becomes read-only while a file is open for writing through it (`EBUSY`).
pub(super) fn change(dir: &Path, device: u64, options: &MountFlags) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(CWD, dir, flags)?;
    if device_number(&mount)? != device {
        return Err(Errno::XDEV.into());
    }
    set_options(&mount, options)
}

/// Sets the options of one mount point, not of the file system: the tenant's other mount points have their own.
fn set_options(mount: &OwnedFd, options: &MountFlags) -> io::Result<()> {
    Ok(rustix::mount::mount_remount(path_of(mount), flags_of(options) | Flags::BIND, "")?)
}

fn path_of(mount: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", mount.as_raw_fd())
}

fn attach(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// Asks the kernel only: the file system itself may not answer.
fn device_number(mount: &OwnedFd) -> io::Result<u64> {
    let stat = statx(mount, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    Ok(rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor))
}

fn attributes(options: &MountFlags) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, options.read_only);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, options.noexec);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOATIME, options.noatime);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !options.suid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !options.dev);
    attributes
}

fn flags_of(options: &MountFlags) -> Flags {
    let mut flags = Flags::empty();
    flags.set(Flags::RDONLY, options.read_only);
    flags.set(Flags::NOEXEC, options.noexec);
    flags.set(Flags::NOATIME, options.noatime);
    // Said explicitly: otherwise the kernel leaves access times as they were.
    flags.set(Flags::RELATIME, !options.noatime);
    flags.set(Flags::NOSUID, !options.suid);
    flags.set(Flags::NODEV, !options.dev);
    flags
}

/// Takes the topmost mount off a directory. `lazy`: also if it is in use; it goes away with its last user.
pub(super) fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    Ok(rustix::mount::unmount(dir, flags | UnmountFlags::NOFOLLOW)?)
}

/// Largest read-ahead that pays, KiB: large sequential reads arrive in few requests.
const READ_AHEAD_KIB: &str = "1024";

/// Raises the kernel's read-ahead of a mount; it works without.
pub(super) fn raise_read_ahead(dir: &Path) {
    let Ok(mounts) = on(dir) else { return };
    if let Some(mount) = mounts.first() {
        let knob = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
        if let Err(error) = std::fs::write(&knob, READ_AHEAD_KIB) {
            tracing::debug!(%knob, %error, "read-ahead stays as it is");
        }
    }
}

/// A name for a directory that is one component: for the files that remember mounts.
pub(super) fn escaped(dir: &Path) -> String {
    dir.as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' => char::from(*byte).to_string(),
            _ => format!("-{byte:02x}"),
        })
        .collect()
}

/// The directory behind [`escaped`].
pub(super) fn unescaped(name: &OsStr) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'-' {
            let (code, after) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    Some(OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_parsed_with_its_escapes_and_optional_fields() {
        let text = b"36 35 98:0 / /mnt/a\\040b rw,noatime master:1 shared:2 - fuse.vmds vmds#alice rw\n\
                     37 35 0:5 / /proc rw - proc proc rw\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].id, mounts[0].dir.as_path()), (36, Path::new("/mnt/a b")));
        assert!(mounts[0].is_vmds() && !mounts[1].is_vmds());
    }

    #[test]
    fn escaped_directories_come_back() {
        for dir in ["/mnt/alice", "/a b/-c/\u{e9}"] {
            assert_eq!(unescaped(OsStr::new(&escaped(Path::new(dir)))).unwrap(), Path::new(dir));
        }
    }
}

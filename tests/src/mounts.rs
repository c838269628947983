//! What is mounted, as the kernel tells it, and how to be rid of it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Options of the mount itself.
    pub options: String,
    /// Type of the file system.
    pub kind: String,
    /// What is mounted.
    pub source: String,
}

/// All mounts at or below `dir`, in the order they were made.
pub fn mounts_under(dir: &Path) -> Vec<Mount> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is readable");
    table.lines().filter_map(parse).filter(|mount| mount.point.starts_with(dir)).collect()
}

/// Takes away everything mounted at or below `dir`, last mounts first, whoever uses it: FUSE requests in flight
/// fail, so nobody stays stuck.
pub fn detach_all_under(dir: &Path) {
    for mount in mounts_under(dir).iter().rev() {
        // Forcing aborts the FUSE connection but may refuse to unmount; detaching always unmounts.
        let _ = unmount(&mount.point, UnmountFlags::FORCE);
        let _ = unmount(&mount.point, UnmountFlags::DETACH);
    }
}

fn parse(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let front: Vec<&str> = front.split(' ').collect();
    let mut back = back.split(' ');
    Some(Mount {
        point: PathBuf::from(unescape(front.get(4)?)),
        options: (*front.get(5)?).to_owned(),
        kind: back.next()?.to_owned(),
        source: unescape(back.next()?).to_string_lossy().into_owned(),
    })
}

/// Undoes the kernel's `\040`-style escapes.
fn unescape(text: &str) -> OsString {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        match (bytes[at], octal.and_then(|digits| u8::from_str_radix(digits, 8).ok())) {
            (b'\\', Some(byte)) => {
                plain.push(byte);
                at += 4;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let line =
            r"98 1 0:52 / /tmp/a\040b rw,nosuid,nodev - fuse.vmds vmds\043alice rw,user_id=0,group_id=0";
        let mount = parse(line).unwrap();
        assert_eq!(mount.point, Path::new("/tmp/a b"));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("fuse.vmds", "vmds#alice"));
        assert_eq!(mount.options, "rw,nosuid,nodev");
    }
}

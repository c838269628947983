//! The staging directory: for the controller alone, and on a file system that can do what backing files need. What it
//! cannot do is found out by trying, before anybody's bytes depend on it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use address_map::attr::Timestamp;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::S3Error;
use super::upload::random_hex;
use crate::pool::set_mtime;

/// Extended attribute of a backing file in which is noted what of its object is there. Only root sees it.
pub const NOTE: &str = "trusted.vmds.chunks";
/// Largest note, bytes: 10,000 chunks in two bits each, and what else is in it.
pub const NOTE_MAX: usize = 2560;

/// Size of the hole that is tried, bytes: more than any file system allocates ahead.
const HOLE: u64 = 64 << 20;
/// A file system with less room than this may refuse anything, bytes: that says nothing about what it can.
const ROOM_MIN: u64 = 1 << 20;
/// A time that tells how finely a file system keeps times: odd to the microsecond. (Some keep tenths of those.)
const FINE: Timestamp = Timestamp { sec: 1_000_000_001, nsec: 123_457_000 };

/// Makes the directory, or checks one that is there.
///
/// # Errors
/// [`S3Error::Invalid`]: a sentence that says what to do.
pub(super) fn prepare(directory: &Path) -> Result<(), S3Error> {
    make_private(directory)?;
    match try_backing_file(directory) {
        Ok(None) => Ok(()),
        Ok(Some(lacks)) => Err(S3Error::Invalid(format!(
            "the file system of the staging directory {} {lacks}; name a directory on ext4, XFS, Btrfs or tmpfs \
             as the staging directory",
            directory.display()
        ))),
        // Whoever has no room now is not kept from reading.
        Err(error) if is_full(directory, &error) => Ok(()),
        Err(error) => Err(S3Error::Invalid(format!(
            "the staging directory {} does not work: {error}",
            directory.display()
        ))),
    }
}

/// Makes a directory that is for the controller alone, or checks one that is there.
fn make_private(directory: &Path) -> Result<(), S3Error> {
    let shown = directory.display();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| S3Error::Invalid(format!("the staging directory {shown} cannot be made: {error}")))?;
    let facts = fs::metadata(directory).map_err(|error| {
        S3Error::Invalid(format!("the staging directory {shown} cannot be looked at: {error}"))
    })?;
    if facts.mode() & 0o077 != 0 {
        let mode = facts.mode() & 0o7777;
        return Err(S3Error::Invalid(format!(
            "the staging directory {shown} is open to others (mode {mode:04o}); make it 0700"
        )));
    }
    Ok(())
}

/// Does with a file what is done with each that is being written. Answers what the file system lacks.
fn try_backing_file(directory: &Path) -> io::Result<Option<String>> {
    let unique = random_hex()?;
    let trial = Trial(directory.join(format!(".vmds-probe-{unique}")));
    let unfinished = Trial(directory.join(format!(".vmds-probe-{unique}~")));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished.0)?;
    if let Some(lacks) = try_note(&file)? {
        return Ok(Some(lacks));
    }
    file.set_len(HOLE)?;
    if file.metadata()?.blocks() * 512 >= HOLE {
        return Ok(Some("keeps no holes: all of a large object would take room there".to_owned()));
    }
    // That a file was changed is seen by its times.
    set_mtime(&file, FINE)?;
    let kept = file.metadata()?;
    if (kept.mtime(), kept.mtime_nsec()) != (FINE.sec, i64::from(FINE.nsec)) {
        return Ok(Some("does not keep times to the microsecond, by which changes are seen".to_owned()));
    }
    fs::rename(&unfinished.0, &trial.0)?;
    file.sync_all()?;
    Ok(None)
}

/// Whether the largest note can be made, and be made anew.
fn try_note(file: &File) -> io::Result<Option<String>> {
    for byte in [1, 2] {
        let (note, mut read) = ([byte; NOTE_MAX], [0; NOTE_MAX]);
        match rustix::fs::fsetxattr(file, NOTE, &note, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOTSUP) => {
                return Ok(Some(
                    "has no extended attributes of the kind trusted, which say what of a large object is there"
                        .to_owned(),
                ));
            }
            Err(Errno::TOOBIG | Errno::RANGE) => return Ok(Some(too_small())),
            Err(Errno::NOSPC) if !has_little_room(file)? => return Ok(Some(too_small())),
            Err(error) => return Err(error.into()),
        }
        let length = rustix::fs::fgetxattr(file, NOTE, &mut read)?;
        if read[..length] != note {
            return Err(io::Error::other("extended attributes are not read as they were written"));
        }
    }
    Ok(None)
}

fn too_small() -> String {
    format!(
        "has no room for extended attributes of {NOTE_MAX} bytes, which say what of a large object is there"
    )
}

fn has_little_room(file: &File) -> io::Result<bool> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(stat.f_bfree.saturating_mul(stat.f_frsize) < ROOM_MIN)
}

/// Whether an error is that of a directory without room.
fn is_full(directory: &Path, error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    let no_room = matches!(errno, Some(Errno::NOSPC | Errno::DQUOT));
    no_room && File::open(directory).is_ok_and(|directory| has_little_room(&directory).unwrap_or(true))
}

/// A file that goes with this value.
struct Trial(PathBuf);

impl Drop for Trial {
    fn drop(&mut self) {
        // One of the two names never was, or is not any more; what cannot be removed is empty, and noticed next time.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_made_private_tried_and_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let staging = dir.path().join("a/b");
        match prepare(&staging) {
            Ok(()) => {}
            // Not whoever runs this may set such attributes, and not every file system has them.
            Err(error) => assert!(error.to_string().contains("staging directory"), "{error}"),
        }
        assert_eq!(fs::metadata(&staging).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(prepare(&staging).unwrap_err().to_string().contains("make it 0700"));
    }
}

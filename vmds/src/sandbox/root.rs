//! Leaving the file tree. Landlock refuses to open files but lets anybody ask whether a path exists; whoever has no
//! tree cannot even ask.

use std::io;

use rustix::process::{chdir, chroot};

/// Makes a directory that belongs to a thread which ends at once the root of the process. Such a directory is
/// empty for ever and needs no place on a disk, no mount and nobody to clean up.
pub(super) fn leave() -> io::Result<()> {
    // The root belongs to all threads of the process.
    let moving = std::thread::Builder::new().name("vmds-root".into()).spawn(|| {
        chroot("/proc/thread-self/fdinfo")?;
        chdir("/")
    })?;
    match moving.join() {
        Ok(moved) => Ok(moved?),
        Err(_) => Err(io::Error::other("the thread that leaves the file tree panicked")),
    }
}

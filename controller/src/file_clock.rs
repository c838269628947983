//! The clock that stamps inodes of the address map: the one from which the kernel stamps files.
//!
//! Times of names and attributes come from here, times of written bytes from the backing file. Since both come from one
//! clock, what happens later is never stamped earlier. The wall clock cannot give that: it runs ahead of the kernel's stamps
//! by up to a tick, and a file would be older after its first write than at its creation.

use std::io;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use address_map::attr::Timestamp;
use address_map::clock::{Clock, SystemClock};
use rustix::fs::{MemfdFlags, Timespec, Timestamps, UTIME_NOW, fstat, futimens, memfd_create};

/// Reads the time off a file in memory that it touches.
#[derive(Debug)]
pub(crate) struct FileClock {
    file: OwnedFd,
}

impl FileClock {
    /// Makes the file.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { file: memfd_create(c"clock", MemfdFlags::CLOEXEC)? })
    }

    fn touch(&self) -> rustix::io::Result<Timestamp> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        futimens(&self.file, &Timestamps { last_access: now, last_modification: now })?;
        let stat = fstat(&self.file)?;
        Ok(Timestamp::new(stat.st_mtime, stat.st_mtime_nsec as u32))
    }
}

impl Clock for FileClock {
    fn now(&self) -> SystemTime {
        self.timestamp().into()
    }

    fn timestamp(&self) -> Timestamp {
        // Neither call can fail on an open file in memory; the wall clock is at most a tick ahead.
        self.touch().unwrap_or_else(|_| SystemClock.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_happens_later_is_never_stamped_earlier() {
        let clock = FileClock::new().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let mut last = clock.timestamp();
        for _ in 0..2_000 {
            file.write_all(b"x").unwrap();
            let metadata = file.metadata().unwrap();
            let written = Timestamp::new(metadata.mtime(), metadata.mtime_nsec() as u32);
            assert!(written >= last, "{written:?} was before {last:?}");
            last = clock.timestamp();
            assert!(last >= written, "{last:?} is before {written:?}");
        }
    }
}

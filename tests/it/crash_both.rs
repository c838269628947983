//! Promise: when the controller and the VMDS die together, what was synced is there after the next start.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::io::Errno;
use tests::{Loads, Random, full, wait_until};

use crate::crash_vmds::{room, seed};
use crate::help::{SOON, world};

/// Workers that write at the same time.
const WORKERS: u64 = 3;
/// Most entries synced between two crashes.
const SYNCED_MAX: u64 = 60;

/// What one round of a worker leaves behind.
fn path(number: u64) -> [String; 3] {
    [format!("file-{number}"), format!("dir-{number}"), format!("link-{number}")]
}

fn contents(worker: u64, number: u64) -> Vec<u8> {
    Random::new(worker << 32 | number).bytes(1 + number as usize * 37 % 9000)
}

/// Makes a file, a directory and a second name, and syncs them.
fn make(dir: &Path, worker: u64, number: u64) -> io::Result<()> {
    let [file, sub, link] = path(number);
    let draft = dir.join(format!("{file}.new"));
    let mut new = File::create_new(&draft)?;
    new.write_all(&contents(worker, number))?;
    new.sync_all()?;
    fs::rename(&draft, dir.join(&file))?;
    fs::create_dir(dir.join(&sub))?;
    fs::hard_link(dir.join(&file), dir.join(sub).join(link))?;
    File::open(dir)?.sync_all()
}

/// Everything that this worker has synced is there.
fn look(dir: &Path, worker: u64, synced: u64) {
    for number in 0..synced {
        let [file, sub, link] = path(number);
        for path in [dir.join(file), dir.join(sub).join(link)] {
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{} was synced: {e}", path.display()));
            assert!(bytes == contents(worker, number), "{}: {} wrong bytes", path.display(), bytes.len());
        }
    }
}

/// Works from `first` until it is stopped by an error, which must say that the mount is gone. Answers what was synced.
fn work(dir: &Path, worker: u64, first: u64) -> u64 {
    let mut number = first;
    loop {
        match make(dir, worker, number) {
            Ok(()) => number += 1,
            Err(error) => {
                let gone = [Errno::NOTCONN, Errno::CONNABORTED, Errno::NODEV, Errno::NOENT, Errno::IO];
                let known = gone.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()));
                assert!(known, "{}: {error}", dir.display());
                return number;
            }
        }
    }
}

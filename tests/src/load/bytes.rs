//! Loads that write bytes, and read them back.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Stop, full};
use crate::fixture::Random;

/// Bytes per call.
const CHUNK: usize = 1 << 20;
/// Files that are kept beside each other.
const KEPT: u64 = 3;
/// Bytes of one place in the unlinked file.
const PLACE: usize = 4096;
/// Places in the unlinked file.
const PLACES: usize = 256;

/// Writes large files into the existing directory `dir`, one after another, and reads each back; at the end, those
/// that are left once more. Answers how many were written.
pub fn sequential_files(dir: &Path, seed: u64, stop: &Stop) -> u64 {
    let chunks = if full() { 256 } else { 16 };
    let path = |number: u64| dir.join(format!("large-{}", number % KEPT));
    let mut written = 0;
    while !stop.is_set() {
        let mut random = Random::new(seed + written);
        let file = File::create(path(written)).expect("create a large file");
        for chunk in 0..chunks {
            let bytes = random.bytes(CHUNK);
            file.write_all_at(&bytes, chunk * CHUNK as u64).expect("write a large file");
        }
        file.sync_all().expect("sync a large file");
        drop(file);
        read_back(&path(written), seed + written, chunks);
        written += 1;
    }
    for number in written.saturating_sub(KEPT)..written {
        read_back(&path(number), seed + number, chunks);
    }
    written
}

fn read_back(path: &Path, seed: u64, chunks: u64) {
    let mut random = Random::new(seed);
    let file = File::open(path).expect("open a large file");
    assert_eq!(file.metadata().expect("look at a large file").len(), chunks * CHUNK as u64);
    let mut bytes = vec![0; CHUNK];
    for chunk in 0..chunks {
        file.read_exact_at(&mut bytes, chunk * CHUNK as u64).expect("read a large file");
        assert!(bytes == random.bytes(CHUNK), "{}: wrong bytes in MiB {chunk}", path.display());
    }
}

/// Keeps a file without a name open, writes to it and reads it back. Answers how often.
pub fn unlinked_file(dir: &Path, seed: u64, stop: &Stop) -> u64 {
    let path = dir.join("unlinked");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("create a file");
    let mut random = Random::new(seed);
    let mut expected = random.bytes(PLACE * PLACES);
    file.write_all_at(&expected, 0).expect("write a file");
    fs::remove_file(&path).expect("remove a file");
    let mut found = vec![0; PLACE];
    let mut done = 0;
    while !stop.is_set() {
        let place = random.below(PLACES as u64) as usize * PLACE;
        let bytes = random.bytes(PLACE);
        file.write_all_at(&bytes, place as u64).expect("write an unlinked file");
        expected[place..place + PLACE].copy_from_slice(&bytes);
        let place = random.below(PLACES as u64) as usize * PLACE;
        file.read_exact_at(&mut found, place as u64).expect("read an unlinked file");
        assert!(found == expected[place..place + PLACE], "wrong bytes in an unlinked file at {place}");
        assert_eq!(file.metadata().expect("look at an unlinked file").len(), expected.len() as u64);
        done += 1;
    }
    assert!(!path.exists(), "the name has come back");
    done
}

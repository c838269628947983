//! Trees of files, the same for the same seed.

use std::ffi::OsStr;
use std::fs::{self, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Pseudo-random numbers (splitmix64): the same for the same seed, on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// This many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Files per directory, on average.
const FILES_PER_DIR: usize = 60;
/// Sizes that files have, and how many in 1,000 files have it.
const SIZES: [(usize, u64); 8] =
    [(0, 50), (1, 50), (100, 400), (1_000, 300), (4_096, 100), (4_097, 50), (20_000, 45), (300_000, 5)];

/// Fills the existing directory `root` with `files` regular files in nested directories, beside symbolic links, hard
/// links, a pipe, empty directories, odd names, odd modes and times with nanoseconds.
pub fn tree(root: &Path, seed: u64, files: usize) {
    let mut random = Random::new(seed);
    let dirs = make_dirs(root, &mut random, files / FILES_PER_DIR);
    for number in 0..files {
        let dir = &dirs[random.below(dirs.len() as u64) as usize];
        let file = dir.join(file_name(number, &mut random));
        write_file(&file, &mut random);
        match random.below(40) {
            0 => symlink(file.file_name().expect("a file has a name"), dir.join(format!("sym-{number}")))
                .expect("make a symbolic link"),
            1 => symlink("../nowhere/at all", dir.join(format!("dangling-{number}")))
                .expect("make a dangling link"),
            2 => {
                let other = &dirs[random.below(dirs.len() as u64) as usize];
                fs::hard_link(&file, other.join(format!("hard-{number}"))).expect("make a hard link");
            }
            _ => {}
        }
    }
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("make a pipe");
    // Last, from the leaves to the root: a directory's times change with its entries.
    for dir in dirs.iter().rev() {
        set_times(dir, &mut random);
    }
}

fn make_dirs(root: &Path, random: &mut Random, count: usize) -> Vec<PathBuf> {
    let mut dirs = vec![root.to_owned()];
    for number in 0..count {
        let parent = dirs[random.below(dirs.len() as u64) as usize].clone();
        let dir = parent.join(format!("dir {number}"));
        fs::create_dir(&dir).expect("make a directory");
        let mode = [0o755, 0o700, 0o2775, 0o1777][random.below(4) as usize];
        fs::set_permissions(&dir, Permissions::from_mode(mode)).expect("set a mode");
        dirs.push(dir);
    }
    dirs
}

fn file_name(number: usize, random: &mut Random) -> std::ffi::OsString {
    match random.below(50) {
        0 => format!("{number} with spaces and\nnew line").into(),
        1 => format!("-{number}-\u{1f40c}-äöü").into(),
        2 => OsStr::from_bytes(&[format!("{number}-").as_bytes(), b"\xff\xfe\x01"].concat()).to_owned(),
        3 => format!("{number}-{}", "x".repeat(255 - format!("{number}-").len())).into(),
        4 => format!(".{number}\\'\"*?").into(),
        _ => format!("file-{number}.dat").into(),
    }
}

fn write_file(path: &Path, random: &mut Random) {
    let mut pick = random.below(1_000);
    let size = SIZES.iter().find_map(|&(size, share)| {
        let hit = pick < share;
        pick = pick.wrapping_sub(share);
        hit.then_some(size)
    });
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).expect("create a file");
    file.write_all(&random.bytes(size.unwrap_or(0))).expect("write a file");
    let mode = [0o644, 0o600, 0o755, 0o444, 0o4755, 0o640][random.below(6) as usize];
    file.set_permissions(Permissions::from_mode(mode)).expect("set a mode");
    file.set_times(times(random)).expect("set times");
}

fn set_times(dir: &Path, random: &mut Random) {
    let handle = fs::File::open(dir).expect("open a directory");
    handle.set_times(times(random)).expect("set times");
}

fn times(random: &mut Random) -> FileTimes {
    let time = UNIX_EPOCH
        + Duration::new(1_000_000_000 + random.below(700_000_000), random.below(1_000_000_000) as u32);
    FileTimes::new().set_accessed(time).set_modified(time)
}

//! Loads on one large directory: listings of it, and changes beside what stays.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::Stop;

/// Names that come and go beside those that stay.
const PASSING: u64 = 50;

fn staying(number: usize) -> String {
    format!("stays-{number}")
}

/// Makes `count` files that stay in the existing directory `dir`.
pub fn fill(dir: &Path, count: usize) {
    for number in 0..count {
        mknodat(CWD, dir.join(staying(number)), FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
            .expect("make a file");
    }
}

/// Lists a directory that was filled with `count` files: each must be there once. Answers how many listings were made.
pub fn listings(dir: &Path, count: usize, stop: &Stop) -> u64 {
    let expected: HashSet<String> = (0..count).map(staying).collect();
    let mut done = 0;
    while !stop.is_set() || done == 0 {
        let mut found = HashSet::with_capacity(count);
        for entry in fs::read_dir(dir).expect("list a directory") {
            let name = entry.expect("list a directory").file_name().into_string().expect("names are text");
            if expected.contains(&name) {
                assert!(found.insert(name.clone()), "{name} is listed twice");
            }
        }
        assert_eq!(found.len(), expected.len(), "names listed, of those that were always there");
        done += 1;
    }
    done
}

/// Makes and removes other names in that directory. Answers how many times.
pub fn changes_beside(dir: &Path, stop: &Stop) -> u64 {
    let path = |number: u64| dir.join(format!("passing-{number}"));
    let mut done = 0;
    while !stop.is_set() {
        File::create_new(path(done)).expect("create a file");
        done += 1;
        if done > PASSING {
            fs::remove_file(path(done - 1 - PASSING)).expect("remove a file");
        }
    }
    done
}

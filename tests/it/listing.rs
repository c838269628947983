//! Promise: a directory is listed completely, once, and in an order that changes by others do not disturb.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, RawDir, SeekFrom, mknodat, seek};
use tests::full;

use crate::help::{everywhere, names, world};

/// Entries of the large directory.
const MANY: usize = 20_000;
/// Entries of the very large one, every day and in full.
const VERY_MANY: (usize, usize) = (100_000, 1_000_000);
/// Of those, one in this many goes while positions are tried.
const GOING: usize = 50;
/// Positions that are tried.
const POSITIONS: usize = 60;
/// Entries read behind one: enough to meet one that stays.
const BEHIND: usize = 400;

/// Entries from where the directory's offset is, at most `count`; with each the offset behind it.
fn entries(dir: &File, count: usize) -> Vec<(String, u64)> {
    let mut buffer = vec![MaybeUninit::uninit(); 32_768];
    let mut raw = RawDir::new(dir, &mut buffer);
    let mut found = Vec::new();
    while found.len() < count {
        let Some(entry) = raw.next() else { break };
        let entry = entry.unwrap();
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.next_entry_cookie()));
    }
    found
}

fn fill(dir: &Path, count: usize) {
    for number in 0..count {
        File::create_new(dir.join(format!("entry-{number:06}"))).unwrap();
    }
}

#[test]
fn a_large_directory_is_listed_completely_and_every_offset_leads_back() {
    everywhere(|root| {
        let dir = root.join("large");
        fs::create_dir(&dir).unwrap();
        fill(&dir, MANY);
        let expected: Vec<String> = (0..MANY).map(|n| format!("entry-{n:06}")).collect();
        assert_eq!(names(&dir), expected);

        let handle = File::open(&dir).unwrap();
        let all = entries(&handle, usize::MAX);
        assert_eq!(all.len(), MANY + 2, "with . and ..");
        for at in (0..all.len() - 1).step_by(997) {
            seek(&handle, SeekFrom::Start(all[at].1)).unwrap();
            assert_eq!(entries(&handle, 1)[0].0, all[at + 1].0, "behind entry {at}");
        }
        seek(&handle, SeekFrom::Start(0)).unwrap();
        assert_eq!(entries(&handle, usize::MAX), all, "after a rewind");
    });
}

#[test]
fn entries_that_stay_are_listed_once_while_others_come_and_go() {
    everywhere(|root| {
        let dir = root.join("busy");
        fs::create_dir(&dir).unwrap();
        fill(&dir, 5000);
        let handle = File::open(&dir).unwrap();
        let mut listed: HashMap<String, usize> = HashMap::new();
        let mut turn = 0;
        loop {
            // Pages are small enough that the listing takes many calls.
            let page = entries(&handle, 500);
            let Some((_, offset)) = page.last() else { break };
            seek(&handle, SeekFrom::Start(*offset)).unwrap();
            for (name, _) in page {
                *listed.entry(name).or_default() += 1;
            }
            // Every third entry goes sometime, seen or not; new ones come.
            for number in (turn..5000).step_by(30) {
                let _ = fs::remove_file(dir.join(format!("entry-{:06}", number / 3 * 3)));
            }
            File::create(dir.join(format!("new-{turn}"))).unwrap();
            turn += 1;
        }
        let stayed: HashSet<String> =
            (0..5000).map(|n| format!("entry-{n:06}")).filter(|name| dir.join(name).exists()).collect();
        assert!(stayed.len() > 3000);
        for name in &stayed {
            assert_eq!(listed.get(name), Some(&1), "{name}");
        }
        assert!(listed.values().all(|&times| times == 1));
    });
}

#[test]
fn inode_numbers_of_a_listing_are_those_of_stat() {
    everywhere(|dir| {
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("f"), "").unwrap();
        std::os::unix::fs::symlink("f", dir.join("s")).unwrap();
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let seen = fs::symlink_metadata(entry.path()).unwrap();
            assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), seen.ino());
            assert_eq!(entry.file_type().unwrap(), seen.file_type());
        }
    });
}

#[test]
fn a_very_large_directory_keeps_its_positions_while_entries_come_and_go() {
    let count = if full() { VERY_MANY.1 } else { VERY_MANY.0 };
    let world = world();
    let dir = world.mounted("alice").join("very large");
    fs::create_dir(&dir).unwrap();
    timed("made", || (0..count).for_each(|number| make(&dir.join(format!("{number}")))));
    let handle = File::open(&dir).unwrap();
    let all = timed("listed", || entries(&handle, usize::MAX));
    assert_eq!(all.len(), count + 2, "with . and ..");
    assert_eq!(all.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), count + 2, "each once");

    // Behind each of these offsets comes this name first, of those that stay.
    let stays = |name: &str| name.parse::<usize>().is_ok_and(|number| number % GOING != 0);
    let positions: Vec<(u64, &str)> = (0..count - BEHIND)
        .step_by(count / POSITIONS)
        .map(|at| {
            (all[at].1, all[at + 1..].iter().map(|(name, _)| name.as_str()).find(|name| stays(name)).unwrap())
        })
        .collect();
    let try_all = || {
        for (offset, expected) in &positions {
            seek(&handle, SeekFrom::Start(*offset)).unwrap();
            let behind = entries(&handle, BEHIND);
            let found = behind.iter().map(|(name, _)| name.as_str()).find(|name| stays(name));
            assert_eq!(found, Some(*expected), "behind {offset}");
        }
    };
    thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for number in (0..count).step_by(GOING) {
                fs::remove_file(dir.join(format!("{number}"))).unwrap();
                make(&dir.join(format!("new {number}")));
            }
        });
        let mut rounds = 0;
        while rounds == 0 || !changes.is_finished() {
            try_all();
            rounds += 1;
        }
        eprintln!("{POSITIONS} positions were tried {rounds} times meanwhile");
    });
    try_all();
    seek(&handle, SeekFrom::Start(0)).unwrap();
    let left = timed("listed", || entries(&handle, usize::MAX));
    let stayed: HashSet<&str> =
        left.iter().map(|(name, _)| name.as_str()).filter(|name| stays(name)).collect();
    assert_eq!((left.len(), stayed.len()), (count + 2, count - count / GOING), "as many came as went");
    timed("removed", || fs::remove_dir_all(&dir).unwrap());
    world.ctl(&["check"]);
}

fn make(path: &Path) {
    mknodat(CWD, path, FileType::RegularFile, Mode::from_raw_mode(0o644), 0).unwrap();
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    eprintln!("{what} in {:.1?}", begin.elapsed());
    result
}

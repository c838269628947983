//! Promise: many at once are as good as one after another: every name is made once, and counters stay exact.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::fs::statvfs;
use rustix::io::Errno;
use tests::Random;

use crate::help::{names, world};

/// Threads of a storm.
const THREADS: u64 = 8;

/// Runs `work` in many threads at once, each with its number.
fn storm(work: impl Fn(u64) + Sync) {
    thread::scope(|scope| {
        for number in 0..THREADS {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

/// One step of a storm in which everybody uses the same few names. Only these errors may come.
fn step(dir: &Path, random: &mut Random) {
    let name = |random: &mut Random| dir.join(format!("n{}", random.below(6)));
    let (a, b) = (name(random), name(random));
    let done = match random.below(7) {
        0 => File::create_new(&a).map(drop),
        1 => fs::create_dir(&a),
        2 => fs::remove_file(&a),
        3 => fs::remove_dir(&a),
        4 => fs::rename(&a, &b),
        5 => fs::hard_link(&a, &b),
        _ => fs::create_dir(a.join("below")).and_then(|()| fs::remove_dir(a.join("below"))),
    };
    let allowed = [
        Errno::EXIST,
        Errno::NOENT,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::NOTEMPTY,
        Errno::PERM,
        Errno::INVAL,
        Errno::BUSY,
    ];
    if let Err(error) = done {
        assert!(allowed.iter().any(|e| Some(e.raw_os_error()) == error.raw_os_error()), "{error}");
    }
}

#[test]
fn a_storm_on_few_names_leaves_a_sound_tree() {
    let world = world();
    let dir = world.mounted("alice");
    let before = statvfs(&dir).unwrap();
    storm(|number| {
        let mut random = Random::new(number);
        for _ in 0..600 {
            step(&dir, &mut random);
        }
    });
    world.ctl(&["check"]);
    for name in names(&dir) {
        let path = dir.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.unwrap();
    }
    let after = statvfs(&dir).unwrap();
    assert_eq!(before.f_files - before.f_ffree, after.f_files - after.f_ffree, "inodes in use");
    world.ctl(&["check"]);
}

#[test]
fn of_many_that_make_the_same_name_one_succeeds() {
    let world = world();
    let dir = world.mounted("alice");
    for round in 0..50 {
        let winners = AtomicU32::new(0);
        storm(|number| {
            let path = dir.join(format!("round-{round}"));
            let made = if number % 2 == 0 { fs::create_dir(path) } else { File::create_new(path).map(drop) };
            winners.fetch_add(u32::from(made.is_ok()), Ordering::Relaxed);
        });
        assert_eq!(winners.into_inner(), 1);
    }
}

#[test]
fn a_storm_from_both_sides_of_a_share_leaves_both_trees_sound() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("d")).unwrap();
    world.ctl(&["share", "grant", "alice:/d", "bob:/d", "--rw"]);
    storm(|number| {
        let dir = if number % 2 == 0 { alice.join("d") } else { bob.join("d") };
        let mut random = Random::new(100 + number);
        for _ in 0..400 {
            step(&dir, &mut random);
        }
    });
    assert_eq!(names(&alice.join("d")), names(&bob.join("d")));
    tests::snapshot(&alice.join("d")).assert_same(&tests::snapshot(&bob.join("d")));
    world.ctl(&["check"]);
}

#[test]
fn everybody_makes_many_files_of_their_own() {
    let world = world();
    let dir = world.mounted("alice");
    storm(|number| {
        for file in 0..250 {
            let path = dir.join(format!("{number}-{file}"));
            fs::write(&path, path.as_os_str().as_encoded_bytes()).unwrap();
        }
    });
    let listed = names(&dir);
    assert_eq!(listed.len() as u64, THREADS * 250);
    for name in &listed {
        let path = dir.join(name);
        assert_eq!(fs::read(&path).unwrap(), path.as_os_str().as_encoded_bytes());
    }
    storm(|number| {
        for file in 0..250 {
            fs::remove_file(dir.join(format!("{number}-{file}"))).unwrap();
        }
    });
    assert_eq!(names(&dir), [""; 0]);
    world.ctl(&["check"]);
}

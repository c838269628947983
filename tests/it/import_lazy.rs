//! Promise: directories of a bucket can be imported without being listed, until somebody looks.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use tests::World;
use tests::s3::{Fault, RequestKind};
use tests::wait_until;

use crate::help::{SOON, assert_errno, names};
use crate::import::{DATA, assert_shows, keys, put, world};

/// How many directories were asked for.
fn listed(world: &World) -> usize {
    let lists = world.objects().requests_of(RequestKind::ListObjectsV2).into_iter();
    lists.filter(|list| list.parameter("delimiter").is_some()).count()
}

#[test]
fn directories_are_listed_when_somebody_looks() {
    let mut world = world();
    let root = world.mounted("a");
    let objects = put(&world, &DATA);
    world.ctl(&["import", &world.place("data/"), "a:/lazy", "--lazy"]);
    assert!(root.join("lazy").is_dir());
    world.objects().forget_requests();
    assert_eq!(names(&root), ["lazy"]);
    assert_eq!(listed(&world), 0, "nobody has looked into it");
    let path = root.join("lazy/train/deep/er/c.csv");
    assert!(fs::read(&path).unwrap() == objects["data/train/deep/er/c.csv"]);
    assert_eq!(listed(&world), 4, "one directory after the other");
    world.vmds().signal(Signal::KILL);
    world.crash_controller();
    assert_shows(&root.join("lazy"), "data/", &objects);
    assert_eq!(listed(&world), 4, "what was listed stays");
    world.ctl(&["check"]);
    world.ctl(&["pool", "check", "objects", "--grace", "0s"]);
}

#[test]
fn changes_in_a_directory_that_nobody_has_looked_into_find_it_listed() {
    let world = world();
    let root = world.mounted("a");
    put(&world, &["k/keep/file", "k/gone/file", "k/x/sub/file", "k/y/file", "k/z"]);
    let import = |to: &str| drop(world.ctl(&["import", &world.place("k"), &format!("a:/{to}"), "--lazy"]));
    import("one");
    assert_errno(fs::remove_dir(root.join("one")), Errno::NOTEMPTY);
    assert_errno(fs::remove_dir(root.join("one/keep")), Errno::NOTEMPTY);
    import("two");
    assert_errno(fs::File::create_new(root.join("two/z")), Errno::EXIST);
    fs::remove_file(root.join("two/gone/file")).unwrap();
    fs::remove_dir(root.join("two/gone")).unwrap();
    fs::create_dir(root.join("new")).unwrap();
    assert_errno(fs::rename(root.join("new"), root.join("two/y")), Errno::NOTEMPTY);
    fs::rename(root.join("two/x"), root.join("moved")).unwrap();
    assert_eq!(names(&root.join("moved/sub")), ["file"]);
    import("three");
    assert_errno(fs::hard_link(root.join("one/z"), root.join("three/z")), Errno::EXIST);
    import("four");
    fs::remove_dir_all(root.join("four")).unwrap();
    // What was known not to be there before it was imported.
    fs::create_dir(root.join("five")).unwrap();
    assert_errno(fs::read(root.join("five/z")), Errno::NOENT);
    assert_eq!(names(&root.join("five")).len(), 0);
    import("five");
    assert!(root.join("five/z").is_file());
    assert_eq!(names(&root.join("five")), ["gone", "keep", "x", "y", "z"]);
    assert_eq!(keys(&world).len(), 5);
    world.ctl(&["check"]);
}

#[test]
fn of_many_who_look_at_once_one_asks_the_store_and_all_wait() {
    let world = world();
    let root = world.mounted("a");
    for number in 0..3_000 {
        world.bucket().put(&format!("wide/{number}"), "x");
    }
    world.ctl(&["import", &world.place("wide"), "a:/wide", "--lazy"]);
    fs::write(root.join("beside"), "x").unwrap();
    world.objects().forget_requests();
    // Longer than one question is answered in.
    let slow = Fault::Latency(Duration::from_secs(8));
    world.objects().faults().add(slow.always().on(RequestKind::ListObjectsV2));
    let dir = root.join("wide");
    thread::scope(|scope| {
        let lookers: Vec<_> = (0..20)
            .map(|number| {
                let dir = &dir;
                scope.spawn(move || match number % 3 {
                    0 => assert!(names(dir).len() >= 3_000),
                    1 => assert_eq!(fs::read(dir.join("2999")).unwrap(), b"x"),
                    _ => fs::write(dir.join(format!("new-{number}")), "y").unwrap(),
                })
            })
            .collect();
        wait_until("it is being listed", SOON, || listed(&world) > 0);
        fs::write(root.join("beside"), "others go on").unwrap();
        assert!(lookers.iter().all(|looker| !looker.is_finished()));
    });
    assert_eq!(listed(&world), 3);
    world.ctl(&["check"]);
}

#[test]
fn a_listing_that_fails_is_an_error_and_is_made_by_who_looks_next() {
    let mut world = world();
    let root = world.mounted("a");
    for number in 0..2_500 {
        world.bucket().put(&format!("wide/{number}"), "x");
    }
    world.ctl(&["import", &world.place("wide"), "a:/wide", "--lazy"]);
    let denied = Fault::Answer { status: 403, code: "AccessDenied" };
    world.objects().faults().add(denied.always().on(RequestKind::ListObjectsV2).after(1));
    assert_errno(fs::read_dir(root.join("wide")).and_then(|mut dir| dir.next().unwrap()), Errno::IO);
    assert_errno(fs::read(root.join("wide/1")), Errno::IO);
    world.crash_controller();
    world.objects().faults().clear();
    assert_eq!(names(&root.join("wide")).len(), 2_500);
    world.ctl(&["check"]);
}

//! Promise: a share has a border. Rights are kept, nothing moves across, and nothing is passed on.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, mknodat};
use rustix::io::Errno;
use tests::World;

use crate::help::{assert_errno, assert_unknown, names, world};

/// Alice shares `/d`, which holds a file and a directory, with bob at `/in/d`. Gives both roots.
fn shared(world: &World, rights: &str) -> (PathBuf, PathBuf) {
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir_all(alice.join("d/sub")).unwrap();
    fs::write(alice.join("d/file"), "bytes").unwrap();
    world.ctl(&["share", "grant", "alice:/d", "bob:/in/d", rights]);
    (alice, bob)
}

#[test]
fn a_read_only_share_refuses_every_change_with_erofs() {
    let world = world();
    let (alice, bob) = shared(&world, "--ro");
    let d = bob.join("in/d");
    let file = d.join("file");
    for flags in [OpenOptions::new().write(true), OpenOptions::new().append(true)] {
        assert_errno(flags.open(&file), Errno::ROFS);
    }
    assert_errno(OpenOptions::new().write(true).truncate(true).open(&file), Errno::ROFS);
    assert_errno(
        OpenOptions::new().write(true).create(true).truncate(false).open(d.join("new")),
        Errno::ROFS,
    );
    assert_errno(fs::create_dir(d.join("new")), Errno::ROFS);
    assert_errno(symlink("x", d.join("new")), Errno::ROFS);
    assert_errno(fs::hard_link(&file, d.join("new")), Errno::ROFS);
    assert_errno(fs::remove_file(&file), Errno::ROFS);
    assert_errno(fs::remove_dir(d.join("sub")), Errno::ROFS);
    assert_errno(fs::rename(&file, d.join("new")), Errno::ROFS);
    assert_errno(fs::set_permissions(&file, Permissions::from_mode(0o600)), Errno::ROFS);
    assert_errno(std::os::unix::fs::chown(&file, Some(1), None), Errno::ROFS);
    let times = rustix::fs::utimensat(CWD, &file, &now(), rustix::fs::AtFlags::empty());
    assert_eq!(times, Err(Errno::ROFS));
    let set = rustix::fs::setxattr(&file, "user.k", b"v", rustix::fs::XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
    let fifo = mknodat(CWD, d.join("new"), FileType::Fifo, Mode::from_raw_mode(0o600), 0);
    assert_eq!(fifo, Err(Errno::ROFS));
    let reader = fs::File::open(&file).unwrap();
    assert!(rustix::fs::fallocate(&reader, FallocateFlags::empty(), 0, 10).is_err());
    assert_eq!(names(&alice.join("d")), ["file", "sub"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "bytes");
}

#[test]
fn a_read_only_share_of_a_file_refuses_writes() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::write(alice.join("f"), "bytes").unwrap();
    world.ctl(&["share", "grant", "alice:/f", "bob:/f", "--ro"]);
    assert_errno(fs::write(bob.join("f"), "other"), Errno::ROFS);
    assert_errno(OpenOptions::new().append(true).open(bob.join("f")), Errno::ROFS);
    assert_eq!(fs::read_to_string(alice.join("f")).unwrap(), "bytes");
}

#[test]
fn nothing_is_renamed_or_linked_across_the_border() {
    let world = world();
    let (alice, bob) = shared(&world, "--rw");
    fs::write(bob.join("own"), "of bob").unwrap();
    fs::create_dir(bob.join("owndir")).unwrap();
    let d = bob.join("in/d");
    assert_errno(fs::rename(bob.join("own"), d.join("own")), Errno::XDEV);
    assert_errno(fs::rename(bob.join("owndir"), d.join("owndir")), Errno::XDEV);
    assert_errno(fs::rename(d.join("file"), bob.join("file")), Errno::XDEV);
    assert_errno(fs::rename(d.join("sub"), bob.join("sub")), Errno::XDEV);
    assert_errno(fs::hard_link(bob.join("own"), d.join("own")), Errno::XDEV);
    assert_errno(fs::hard_link(d.join("file"), bob.join("file")), Errno::XDEV);
    assert_eq!(names(&alice.join("d")), ["file", "sub"]);
    assert_eq!(names(&bob), ["in", "own", "owndir"]);
    world.ctl(&["check"]);
}

#[test]
fn between_two_shares_is_a_border_too() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    for name in ["one", "two"] {
        fs::create_dir(alice.join(name)).unwrap();
        world.ctl(&["share", "grant", &format!("alice:/{name}"), &format!("bob:/{name}"), "--rw"]);
    }
    fs::write(bob.join("one/f"), "text").unwrap();
    assert_errno(fs::rename(bob.join("one/f"), bob.join("two/f")), Errno::XDEV);
    assert_errno(fs::hard_link(bob.join("one/f"), bob.join("two/f")), Errno::XDEV);
}

#[test]
fn the_root_of_a_share_is_moved_but_not_removed_by_the_grantee() {
    let world = world();
    let (alice, bob) = shared(&world, "--rw");
    fs::write(alice.join("f"), "text").unwrap();
    world.ctl(&["share", "grant", "alice:/f", "bob:/in/f", "--rw"]);
    fs::remove_file(bob.join("in/d/file")).unwrap();
    fs::remove_dir(bob.join("in/d/sub")).unwrap();
    assert_errno(fs::remove_dir(bob.join("in/d")), Errno::BUSY);
    assert_errno(fs::remove_file(bob.join("in/f")), Errno::BUSY);
    assert!(alice.join("d").is_dir() && alice.join("f").is_file());

    fs::create_dir(bob.join("mine")).unwrap();
    fs::rename(bob.join("in/d"), bob.join("mine/renamed")).unwrap();
    assert_unknown(&bob.join("in/d"));
    fs::write(bob.join("mine/renamed/new"), "by bob").unwrap();
    assert_eq!(fs::read_to_string(alice.join("d/new")).unwrap(), "by bob");
    world.ctl(&["check"]);
    world.ctl(&["share", "revoke", "alice:/d", "bob"]);
    assert_unknown(&bob.join("mine/renamed"));
    assert!(alice.join("d").is_dir());
}

#[test]
fn above_the_root_of_a_share_is_the_grantees_own_directory() {
    let world = world();
    let (alice, bob) = shared(&world, "--ro");
    fs::write(alice.join("beside"), "not shared").unwrap();
    assert_eq!(names(&bob.join("in/d/..")), ["d"]);
    assert_eq!(names(&bob.join("in/d/sub/..")), ["file", "sub"]);
    let up = fs::metadata(bob.join("in/d/..")).unwrap().ino();
    assert_eq!(up, fs::metadata(bob.join("in")).unwrap().ino());
    assert_unknown(&bob.join("in/d/../beside"));
}

#[test]
fn a_share_within_what_is_shared_is_not_passed_on() {
    let world = world();
    let (_, bob) = shared(&world, "--rw");
    fs::write(bob.join("in/own"), "of bob").unwrap();
    let carol = world.mounted("carol");
    world.ctl(&["share", "grant", "bob:/in", "carol:/from-bob", "--rw"]);
    assert_eq!(names(&carol.join("from-bob")), ["own"]);
    assert_unknown(&carol.join("from-bob/d"));
    assert_errno(fs::read(carol.join("from-bob/d/file")), Errno::NOENT);
    // Nor can what was received be given away as one's own.
    world.ctl_refuses(&["share", "grant", "bob:/in/d", "carol:/d", "--ro"]);
    world.ctl_refuses(&["share", "grant", "bob:/in/d/sub", "carol:/d", "--ro"]);
    assert_eq!(names(&carol), ["from-bob"]);
}

#[test]
fn inode_numbers_of_two_tenants_never_collide_in_one_mount() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("d")).unwrap();
    for number in 0..20 {
        fs::write(alice.join(format!("d/{number}")), "").unwrap();
        fs::write(bob.join(number.to_string()), "").unwrap();
    }
    world.ctl(&["share", "grant", "alice:/d", "bob:/d", "--ro"]);
    let ino = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let mut inodes: Vec<u64> = (0..20)
        .flat_map(|n| [ino(bob.join(format!("d/{n}"))), ino(bob.join(n.to_string()))])
        .chain([ino(bob.clone()), ino(bob.join("d"))])
        .collect();
    let all = inodes.len();
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), all);
}

#[test]
fn permission_bits_hold_through_a_share() {
    let world = world();
    let (alice, bob) = shared(&world, "--rw");
    fs::set_permissions(alice.join("d/file"), Permissions::from_mode(0o600)).unwrap();
    let cat = |path: PathBuf| {
        let mut command = std::process::Command::new("cat");
        std::os::unix::process::CommandExt::uid(&mut command, 1234).arg(path);
        tests::run(&mut command)
    };
    assert_eq!(cat(bob.join("in/d/file")).code(), 1);
    fs::set_permissions(alice.join("d/file"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(cat(bob.join("in/d/file")).stdout, "bytes");
}

fn now() -> rustix::fs::Timestamps {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    rustix::fs::Timestamps { last_access: now, last_modification: now }
}

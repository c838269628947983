//! Promise: tenants share the storage and nothing else. The same names in two trees never meet.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::io::Errno;
use tests::mounts_under;

use crate::help::{assert_errno, assert_unknown, names, world};

#[test]
fn the_same_names_in_two_tenants_are_different_files() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    for (dir, text) in [(&alice, "of alice"), (&bob, "of bob")] {
        fs::create_dir(dir.join("data")).unwrap();
        fs::write(dir.join("data/train.csv"), text).unwrap();
    }
    assert_eq!(fs::read_to_string(alice.join("data/train.csv")).unwrap(), "of alice");
    assert_eq!(fs::read_to_string(bob.join("data/train.csv")).unwrap(), "of bob");
    fs::remove_file(alice.join("data/train.csv")).unwrap();
    assert_unknown(&alice.join("data/train.csv"));
    assert_eq!(fs::read_to_string(bob.join("data/train.csv")).unwrap(), "of bob");
    world.ctl(&["check"]);
}

#[test]
fn a_fresh_tenant_sees_nothing_of_another() {
    let world = world();
    let alice = world.mounted("alice");
    fs::create_dir(alice.join("secret")).unwrap();
    fs::write(alice.join("secret/plan"), "nobody else's business").unwrap();
    let bob = world.mounted("bob");
    assert_eq!(names(&bob), [""; 0]);
    for path in ["secret", "secret/plan", ".vmds", ".stats", ".config", ".snapshot", "alice"] {
        assert_errno(fs::symlink_metadata(bob.join(path)), Errno::NOENT);
    }
}

#[test]
fn dots_and_symbolic_links_lead_no_further_than_the_tenants_own_mount() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("secret")).unwrap();
    // Above the root of the mount is the machine's own directory, as on every mount; never another tenant's tree.
    assert_eq!(names(&bob.join("..")), ["alice", "bob"]);
    assert_ne!(fs::metadata(bob.join("..")).unwrap().dev(), fs::metadata(&bob).unwrap().dev());
    symlink("/secret", bob.join("link")).unwrap();
    assert_errno(fs::metadata(bob.join("link")), Errno::NOENT);
}

#[test]
fn a_mount_says_whose_it_is_and_honours_neither_set_user_id_nor_devices() {
    let world = world();
    let dir = world.mounted("alice");
    let mounts = mounts_under(&dir);
    let [mount] = &mounts[..] else { panic!("expected one mount: {mounts:?}") };
    assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("fuse.vmds", "vmds#alice"));
    for option in ["rw", "nosuid", "nodev"] {
        assert!(mount.options.split(',').any(|o| o == option), "{option} is missing: {mount:?}");
    }
}

#[test]
fn mount_options_are_honoured() {
    let world = world();
    world.tenant("alice");
    let dir = world.dir().join("here");
    fs::create_dir(&dir).unwrap();
    world.mount_at("alice", &dir, &["--read-only", "--noexec", "--noatime"]);
    let options = mounts_under(&dir)[0].options.clone();
    for option in ["ro", "noexec", "noatime"] {
        assert!(options.split(',').any(|o| o == option), "{option} is missing: {options}");
    }
    assert_errno(fs::write(dir.join("file"), ""), Errno::ROFS);
    world.ctl(&["umount", dir.to_str().unwrap()]);
    assert_eq!(mounts_under(&dir), []);
    world.mount_at("alice", &dir, &["--suid", "--dev"]);
    let options = mounts_under(&dir)[0].options.clone();
    assert!(!options.contains("nosuid") && !options.contains("nodev"), "{options}");
}

#[test]
fn one_tenant_mounted_twice_shows_the_same_tree_at_once() {
    let world = world();
    let first = world.mounted("alice");
    let second = world.dir().join("second");
    fs::create_dir(&second).unwrap();
    world.mount_at("alice", &second, &[]);
    in_both_directions(&first, &second);
    in_both_directions(&second, &first);
    world.ctl(&["check"]);
}

fn in_both_directions(one: &Path, other: &Path) {
    assert_unknown(&other.join("file"));
    fs::write(one.join("file"), "first").unwrap();
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "first");
    fs::write(one.join("file"), "second, longer").unwrap();
    assert_eq!(fs::metadata(other.join("file")).unwrap().len(), 14);
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "second, longer");
    fs::rename(one.join("file"), one.join("moved")).unwrap();
    assert_unknown(&other.join("file"));
    assert_eq!(names(other), ["moved"]);
    fs::remove_file(one.join("moved")).unwrap();
    assert_unknown(&other.join("moved"));
}

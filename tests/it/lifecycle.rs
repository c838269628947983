//! Promise: the controller can be stopped and started; mounts and contents come back, and it leaves nothing behind.

use std::fs;
use std::path::PathBuf;

use tests::{World, mounts_under, snapshot, tree};

use crate::help::{assert_unknown, names, world};

/// Two tenants with trees and shares in both directions.
fn busy(world: &World) -> (PathBuf, PathBuf) {
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("tree")).unwrap();
    tree(&alice.join("tree"), 5, 300);
    fs::write(bob.join("note"), "of bob").unwrap();
    world.ctl(&["share", "grant", "alice:/tree", "bob:/in/tree", "--ro"]);
    world.ctl(&["share", "grant", "bob:/note", "alice:/note", "--rw"]);
    (alice, bob)
}

#[test]
fn after_a_restart_state_mounts_shares_and_contents_are_back() {
    let mut world = world();
    let (alice, bob) = busy(&world);
    let expected = (snapshot(&alice), snapshot(&bob));
    for _ in 0..2 {
        world.restart_controller();
        expected.0.assert_same(&snapshot(&alice));
        expected.1.assert_same(&snapshot(&bob));
    }
    fs::write(alice.join("note"), "by alice").unwrap();
    assert_eq!(fs::read_to_string(bob.join("note")).unwrap(), "by alice");
    world.ctl(&["check"]);
}

#[test]
fn inode_numbers_stay_over_restarts() {
    let mut world = world();
    let (alice, bob) = busy(&world);
    let inodes = || {
        let ino = |path: PathBuf| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        [ino(alice.join("tree")), ino(bob.join("in/tree")), ino(bob.join("note")), ino(alice.join("note"))]
    };
    let before = inodes();
    world.restart_controller();
    assert_eq!(inodes(), before);
}

#[test]
fn sigterm_leaves_no_mount_and_no_process_even_when_files_are_open() {
    let mut world = world();
    let (alice, _) = busy(&world);
    let vmdses = world.vmdses();
    assert_eq!(vmdses.len(), 2, "one for each mount");
    let open = fs::File::open(alice.join("note")).unwrap();
    assert_eq!(world.stop_controller().code(), Some(0));
    assert_eq!(mounts_under(world.dir()), []);
    assert_eq!(names(&alice), [""; 0], "the bare mount point");
    assert!(vmdses.iter().all(|vmds| !vmds.is_alive()));
    drop(open);
}

#[test]
fn an_unmounted_tenant_stays_unmounted_and_keeps_its_files() {
    let mut world = world();
    let alice = world.mounted("alice");
    fs::write(alice.join("file"), "text").unwrap();
    world.ctl(&["umount", alice.to_str().unwrap()]);
    assert_eq!(world.vmdses(), []);
    world.restart_controller();
    assert_eq!(mounts_under(world.dir()), []);
    world.mount("alice");
    assert_eq!(fs::read_to_string(alice.join("file")).unwrap(), "text");
}

#[test]
fn a_lazy_umount_frees_the_directory_while_the_tree_is_in_use() {
    let world = world();
    let alice = world.mounted("alice");
    fs::write(alice.join("file"), "text").unwrap();
    let open = fs::File::open(alice.join("file")).unwrap();
    world.ctl_refuses(&["umount", alice.to_str().unwrap()]);
    world.ctl(&["umount", alice.to_str().unwrap(), "--lazy"]);
    assert_eq!(mounts_under(&alice), []);
    assert_unknown(&alice.join("file"));
    drop(open);
    world.mount("alice");
    assert_eq!(fs::read_to_string(alice.join("file")).unwrap(), "text");
}

#[test]
fn a_purged_tenant_is_gone_with_its_mounts_shares_and_bytes() {
    let world = world();
    let alice = world.mounted("alice");
    fs::create_dir(alice.join("d")).unwrap();
    fs::write(alice.join("d/file"), vec![1; 1 << 20]).unwrap();
    let bob = world.mounted("bob");
    world.ctl(&["share", "grant", "alice:/d", "bob:/d", "--ro"]);
    assert!(world.stored_sizes().contains(&(1 << 20)));
    world.ctl(&["tenant", "delete", "alice", "--purge"]);
    assert_unknown(&bob.join("d"));
    world.ctl_refuses(&["tenant", "show", "alice"]);
    assert_eq!(mounts_under(&alice), []);
    tests::wait_until("the bytes are removed from the pool", crate::help::SOON, || {
        world.stored_sizes().iter().all(|size| *size < 1 << 20)
    });
    // The name is free again, and the new tenant has nothing of the old one.
    assert_eq!(names(&world.mounted("alice")), [""; 0]);
    assert_unknown(&bob.join("d"));
    world.ctl(&["check"]);
}

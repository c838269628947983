//! Promise: a share is live. Owner and grantee see the same files, each the other's changes at once; nothing is copied.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use tests::{World, ok, snapshot, tree};

use crate::help::{assert_unknown, names, python, world};

/// Alice shares `/project` with bob at `/in/project`. Gives the directory as each of them sees it.
fn shared(world: &World, rights: &str) -> (PathBuf, PathBuf) {
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("project")).unwrap();
    world.ctl(&["share", "grant", "alice:/project", "bob:/in/project", rights]);
    (alice.join("project"), bob.join("in/project"))
}

/// Every kind of change by `one` is seen by the next call of `other`.
fn changes_are_seen(one: &Path, other: &Path) {
    assert_eq!(names(other), [""; 0]);
    assert_unknown(&other.join("file"));
    fs::write(one.join("file"), "first").unwrap();
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "first");
    assert_eq!(names(other), ["file"]);

    let mut reader = File::open(other.join("file")).unwrap();
    OpenOptions::new().append(true).open(one.join("file")).unwrap().write_all(b" second").unwrap();
    assert_eq!(fs::metadata(other.join("file")).unwrap().len(), 12);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "first second", "through a handle that was open before");

    // The same length, so that only the bytes tell.
    fs::write(one.join("file"), "FIRST SECOND").unwrap();
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "FIRST SECOND");
    reader.rewind().unwrap();
    text.clear();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "FIRST SECOND", "through a handle that was open before");

    OpenOptions::new().write(true).open(one.join("file")).unwrap().set_len(5).unwrap();
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "FIRST");

    fs::create_dir(one.join("dir")).unwrap();
    assert_eq!(names(other), ["dir", "file"]);
    fs::rename(one.join("file"), one.join("dir/moved")).unwrap();
    assert_unknown(&other.join("file"));
    assert_eq!(fs::read_to_string(other.join("dir/moved")).unwrap(), "FIRST");

    fs::write(one.join("dir/new"), "replaced").unwrap();
    fs::rename(one.join("dir/new"), one.join("dir/moved")).unwrap();
    assert_eq!(fs::read_to_string(other.join("dir/moved")).unwrap(), "replaced");
    assert_eq!(names(&other.join("dir")), ["moved"]);

    fs::hard_link(one.join("dir/moved"), one.join("link")).unwrap();
    assert_eq!(fs::metadata(other.join("link")).unwrap().nlink(), 2);
    let inode = |path: &str| fs::metadata(other.join(path)).unwrap().ino();
    assert_eq!(inode("link"), inode("dir/moved"));

    fs::remove_file(one.join("dir/moved")).unwrap();
    assert_unknown(&other.join("dir/moved"));
    assert_eq!(fs::metadata(other.join("link")).unwrap().nlink(), 1);
    fs::remove_dir(one.join("dir")).unwrap();
    assert_unknown(&other.join("dir"));
    fs::remove_file(one.join("link")).unwrap();
    assert_eq!(names(other), [""; 0]);
}

#[test]
fn the_owners_changes_are_seen_at_once_through_a_read_only_share() {
    let world = world();
    let (owner, grantee) = shared(&world, "--ro");
    changes_are_seen(&owner, &grantee);
    world.ctl(&["check"]);
}

#[test]
fn changes_are_seen_at_once_in_both_directions_through_a_read_write_share() {
    let world = world();
    let (owner, grantee) = shared(&world, "--rw");
    changes_are_seen(&owner, &grantee);
    changes_are_seen(&grantee, &owner);
    world.ctl(&["check"]);
}

#[test]
fn two_that_have_a_file_open_for_writing_see_each_others_writes() {
    let world = world();
    let (owner, grantee) = shared(&world, "--rw");
    for (one, other) in [(&owner, &grantee), (&grantee, &owner)] {
        let open = |dir: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).open(dir.join("both")).unwrap()
        };
        // Whoever was first, and whether the size was asked for before.
        let (first, second) = (open(one), open(other));
        for (number, writer) in [&first, &second, &first].into_iter().enumerate() {
            let size = number as u64 + 1;
            for file in [&first, &second] {
                assert_eq!(file.metadata().unwrap().len(), size - 1);
            }
            writer.write_all_at(b"x", size - 1).unwrap();
            for (file, dir) in [(&first, one), (&second, other)] {
                assert_eq!(file.metadata().unwrap().len(), size, "write {number}");
                assert_eq!(fs::metadata(dir.join("both")).unwrap().len(), size, "write {number}");
            }
        }
        drop((first, second));
        fs::remove_file(one.join("both")).unwrap();
    }
    world.ctl(&["check"]);
}

#[test]
fn appends_from_both_sides_lose_and_tear_nothing() {
    let world = world();
    let (owner, grantee) = shared(&world, "--rw");
    let program = "import os, sys\n\
         fd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
         for n in range(2000): os.write(fd, (sys.argv[1] * 62 + '\\n').encode())\n";
    let sides = [(&owner, "a"), (&grantee, "b"), (&grantee, "c")];
    let writers = sides.map(|(dir, letter)| python(dir, program).arg(letter).spawn().unwrap());
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let log = fs::read_to_string(owner.join("log")).unwrap();
    let whole = |letter: &str| log.lines().filter(|line| *line == letter.repeat(62)).count();
    assert_eq!((log.len(), whole("a"), whole("b"), whole("c")), (6000 * 63, 2000, 2000, 2000));
    assert_eq!(fs::read_to_string(grantee.join("log")).unwrap(), log);
    world.ctl(&["check"]);
}

#[test]
fn a_single_file_can_be_shared() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::write(alice.join("model"), "weights").unwrap();
    fs::write(alice.join("log"), "line 1\n").unwrap();
    world.ctl(&["share", "grant", "alice:/model", "bob:/model", "--ro"]);
    world.ctl(&["share", "grant", "alice:/log", "bob:/deep/down/log", "--rw"]);
    assert_eq!(fs::read_to_string(bob.join("model")).unwrap(), "weights");
    OpenOptions::new().append(true).open(bob.join("deep/down/log")).unwrap().write_all(b"line 2\n").unwrap();
    assert_eq!(fs::read_to_string(alice.join("log")).unwrap(), "line 1\nline 2\n");
    fs::write(alice.join("model"), "new weights").unwrap();
    assert_eq!(fs::read_to_string(bob.join("model")).unwrap(), "new weights");
    world.ctl(&["check"]);
}

#[test]
fn a_shared_tree_is_the_same_on_both_sides_and_costs_the_grantee_nothing() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("tree")).unwrap();
    tree(&alice.join("tree"), 7, 500);
    let before = rustix::fs::statvfs(&bob).unwrap();
    world.ctl(&["share", "grant", "alice:/tree", "bob:/tree", "--ro"]);
    snapshot(&alice.join("tree")).assert_same(&snapshot(&bob.join("tree")));
    let after = rustix::fs::statvfs(&bob).unwrap();
    let used = |s: &rustix::fs::StatVfs| s.f_files - s.f_ffree;
    assert!(used(&after) <= used(&before) + 1, "the grantee pays at most for the name");
}

#[test]
fn a_share_reaches_a_mount_that_comes_later_and_an_owner_that_is_not_mounted() {
    let world = world();
    let alice = world.mounted("alice");
    world.tenant("bob");
    fs::create_dir(alice.join("d")).unwrap();
    fs::write(alice.join("d/f"), "text").unwrap();
    world.ctl(&["share", "grant", "alice:/d", "bob:/d", "--ro"]);
    world.ctl(&["umount", alice.to_str().unwrap()]);
    let bob = world.mount("bob");
    assert_eq!(fs::read_to_string(bob.join("d/f")).unwrap(), "text");
}

#[test]
fn one_directory_can_be_shared_with_many() {
    let world = world();
    let alice = world.mounted("alice");
    fs::create_dir(alice.join("d")).unwrap();
    let grantees: Vec<PathBuf> = ["bob", "carol", "dave"].map(|name| world.mounted(name)).into();
    for name in ["bob", "carol", "dave"] {
        world.ctl(&["share", "grant", "alice:/d", &format!("{name}:/d"), "--rw"]);
    }
    for (number, grantee) in grantees.iter().enumerate() {
        fs::write(grantee.join(format!("d/{number}")), number.to_string()).unwrap();
    }
    for grantee in &grantees {
        assert_eq!(names(&grantee.join("d")), ["0", "1", "2"]);
        assert_eq!(fs::read_to_string(grantee.join("d/1")).unwrap(), "1");
    }
    world.ctl(&["share", "revoke", "alice:/d", "carol"]);
    assert_unknown(&grantees[1].join("d"));
    assert_eq!(names(&grantees[2].join("d")), ["0", "1", "2"]);
}

#[test]
fn what_the_owner_writes_through_a_mapping_reaches_the_grantee() {
    let world = world();
    let (owner, grantee) = shared(&world, "--ro");
    fs::write(owner.join("map"), [0u8; 8192]).unwrap();
    let reader = File::open(grantee.join("map")).unwrap();
    ok(&mut python(
        &owner,
        "import mmap, os\n\
         fd = os.open('map', os.O_RDWR)\n\
         m = mmap.mmap(fd, 8192)\n\
         m[5000:5005] = b'hello'\n\
         m.flush()\n",
    ));
    let mut bytes = [0; 5];
    File::open(grantee.join("map")).unwrap().read_exact_at(&mut bytes, 5000).unwrap();
    assert_eq!(&bytes, b"hello");
    reader.read_exact_at(&mut bytes, 5000).unwrap();
    assert_eq!(&bytes, b"hello");
}

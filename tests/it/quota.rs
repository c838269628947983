//! Promise: a quota is exact, is enforced at once, and is what `df` shows.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, StatVfs, statvfs};
use rustix::io::Errno;
use tests::{World, ok, wait_until};

use crate::help::{SOON, assert_errno, names, python, world};

const MIB: u64 = 1 << 20;

fn limited(world: &World, tenant: &str, limits: &[&str]) -> PathBuf {
    world.tenant_with(tenant, limits);
    world.mount(tenant)
}

fn space(dir: &Path) -> StatVfs {
    statvfs(dir).unwrap()
}

fn free_bytes(dir: &Path) -> u64 {
    space(dir).f_bavail * space(dir).f_frsize
}

fn fill(file: &mut File) -> std::io::Result<()> {
    loop {
        file.write_all(&[1; 65_536])?;
    }
}

#[test]
fn bytes_end_at_the_quota_and_come_back_when_freed() {
    let world = world();
    let dir = limited(&world, "alice", &["--quota-bytes", "10MiB"]);
    assert_eq!(space(&dir).f_blocks * space(&dir).f_frsize, 10 * MIB, "df shows the quota");
    let mut file = File::create(dir.join("file")).unwrap();
    assert_errno(fill(&mut file), Errno::DQUOT);
    assert_eq!(file.metadata().unwrap().len(), 10 * MIB, "to the last byte");
    assert_eq!(free_bytes(&dir), 0);
    // What is there can be overwritten, and others are refused too.
    file.write_all_at(&[2; 4096], 0).unwrap();
    assert_errno(fs::write(dir.join("other"), [1; 10]), Errno::DQUOT);
    assert_errno(file.set_len(10 * MIB + 1), Errno::DQUOT);
    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 10 * MIB, MIB);
    assert_eq!(allocated, Err(Errno::DQUOT));
    file.set_len(4 * MIB).unwrap();
    fs::remove_file(dir.join("other")).unwrap();
    assert_eq!(free_bytes(&dir), 6 * MIB);
    fs::write(dir.join("other"), vec![1; 6 * MIB as usize]).unwrap();
    drop(file);
    for name in names(&dir) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    wait_until("all space comes back", SOON, || free_bytes(&dir) == 10 * MIB);
    world.ctl(&["check"]);
}

#[test]
fn an_unlinked_file_counts_until_it_is_closed() {
    let world = world();
    let dir = limited(&world, "alice", &["--quota-bytes", "1MiB"]);
    let file = File::create(dir.join("file")).unwrap();
    file.write_all_at(&[1; 1 << 20], 0).unwrap();
    fs::remove_file(dir.join("file")).unwrap();
    assert_eq!(free_bytes(&dir), 0);
    drop(file);
    // The kernel tells of the last close when it is over, not before it returns.
    wait_until("the space comes back", SOON, || free_bytes(&dir) == MIB);
}

#[test]
fn inodes_end_at_the_quota_and_come_back_when_freed() {
    let world = world();
    let dir = limited(&world, "alice", &["--quota-inodes", "10"]);
    assert_eq!(space(&dir).f_files, 10);
    // The root is one of them.
    for number in 0..9 {
        File::create_new(dir.join(number.to_string())).unwrap();
    }
    assert_eq!(space(&dir).f_ffree, 0);
    assert_errno(File::create_new(dir.join("more")), Errno::DQUOT);
    assert_errno(fs::create_dir(dir.join("more")), Errno::DQUOT);
    assert_errno(std::os::unix::fs::symlink("x", dir.join("more")), Errno::DQUOT);
    fs::hard_link(dir.join("0"), dir.join("link")).unwrap();
    fs::remove_file(dir.join("1")).unwrap();
    fs::create_dir(dir.join("more")).unwrap();
    assert_errno(fs::create_dir(dir.join("even more")), Errno::DQUOT);
    world.ctl(&["check"]);
}

#[test]
fn appends_holes_and_mappings_are_charged_by_size() {
    let world = world();
    let dir = limited(&world, "alice", &["--quota-bytes", "1MiB"]);
    let file = File::create(dir.join("sparse")).unwrap();
    assert_errno(file.write_at(b"x", 2 * MIB).map(drop), Errno::DQUOT);
    file.set_len(MIB - 10).unwrap();
    assert_eq!(free_bytes(&dir), 0, "df counts whole blocks");
    ok(&mut python(
        &dir,
        "import mmap, os\n\
         fd = os.open('sparse', os.O_RDWR)\n\
         m = mmap.mmap(fd, 1048576 - 10)\n\
         m[500000:500005] = b'bytes'\n\
         m.flush()\n",
    ));
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
    log.write_all(b"0123456789").unwrap();
    assert_errno(log.write_all(b"x"), Errno::DQUOT);
    assert_eq!(fs::read(dir.join("log")).unwrap(), b"0123456789");
    assert_eq!(&fs::read(dir.join("sparse")).unwrap()[500_000..500_005], b"bytes");
}

#[test]
fn the_owner_of_a_share_pays() {
    let world = world();
    let alice = limited(&world, "alice", &["--quota-bytes", "1MiB", "--quota-inodes", "10"]);
    let bob = limited(&world, "bob", &["--quota-bytes", "64KiB"]);
    fs::create_dir(alice.join("d")).unwrap();
    world.ctl(&["share", "grant", "alice:/d", "bob:/d", "--rw"]);
    let before = free_bytes(&bob);
    fs::write(bob.join("d/large"), vec![1; 900 << 10]).unwrap();
    assert_eq!(free_bytes(&bob), before);
    assert_eq!(free_bytes(&alice), MIB - (900 << 10));
    assert_errno(fs::write(bob.join("d/more"), vec![1; 200 << 10]), Errno::DQUOT);
    fs::remove_file(bob.join("d/large")).unwrap();
    fs::remove_file(bob.join("d/more")).unwrap();
    assert_eq!(free_bytes(&alice), MIB);
    world.ctl(&["check"]);
}

#[test]
fn without_a_quota_df_shows_what_the_tenant_uses_and_what_the_pool_has_left() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::write(alice.join("file"), vec![1; 5 * MIB as usize]).unwrap();
    let used = |dir: &Path| {
        let space = space(dir);
        (space.f_blocks - space.f_bfree) * space.f_frsize
    };
    // Without a quota bytes are counted when the last writer is gone; the kernel tells of that a moment after `close`.
    wait_until("the file is counted", SOON, || used(&alice) == 5 * MIB);
    assert_eq!(used(&bob), 0, "what others use is not told");
    // Others use this disk too, so it is compared roughly; a bucket has no end.
    let left = if world.has_objects() { 1 << 60 } else { free_bytes(&world.state_dir()) };
    assert!(free_bytes(&alice).abs_diff(left) < left / 10);
    assert_eq!(space(&alice).f_namemax, 255);
}

#[test]
fn a_quota_given_or_taken_while_mounted_holds_for_what_is_opened_then() {
    let world = world();
    let dir = world.mounted("alice");
    fs::write(dir.join("before"), vec![1; MIB as usize]).unwrap();
    let manifest = world.dir().join("alice.json");
    let give = |bytes: Option<u64>| {
        let mut tenant = world.ctl_json(&["get", "tenant", "alice"]);
        tenant["spec"]["quota"]["bytes"] = bytes.into();
        fs::write(&manifest, tenant.to_string()).unwrap();
        world.ctl(&["apply", "-f", manifest.to_str().unwrap()]);
    };
    give(Some(2 * MIB));
    wait_until("the quota is seen", SOON, || space(&dir).f_blocks * space(&dir).f_frsize == 2 * MIB);
    wait_until("writes are charged", SOON, || {
        let mut file = File::create(dir.join("more")).unwrap();
        let outcome = file.write_all(&vec![2; 2 * MIB as usize]);
        outcome.is_err_and(|error| error.raw_os_error() == Some(Errno::DQUOT.raw_os_error()))
    });
    give(None);
    wait_until("there is no quota any more", SOON, || {
        fs::write(dir.join("more"), vec![2; 3 * MIB as usize]).is_ok()
    });
    world.ctl(&["check"]);
}

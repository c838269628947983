//! What a mount costs: names made, looked at, listed and removed on a VMDS mount, beside a FUSE file system that does
//! nothing and the pool's own file system, in the same run.
//!
//! It needs root, and the programs beside it: `cargo build --release && cargo bench -p benches --bench mount`.
//! `TMPDIR` says which file system is measured (a tmpfs leaves the disk out of it), `FILES` how many names.

mod null_fs;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use benches::{Table, once, setting};
use tests::{Binaries, World};

/// What is done to each file, and how long it takes on average.
struct Costs {
    create: Duration,
    stat: Duration,
    list: Duration,
    open: Duration,
    unlink: Duration,
}

fn main() {
    // `cargo test --benches` calls this too; a mount is not a thing to do in passing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let files = setting("FILES", 10_000);
    let world = World::start(binaries());
    world.tenant("alice");
    let native_dir = tempfile::tempdir().expect("make a directory");
    let null_dir = tempfile::tempdir().expect("make a directory");
    let session = null_fs::NullFs::mount(null_dir.path());
    let mut table = Table::default();

    let began = std::time::Instant::now();
    let mount = world.mount("alice");
    fs::metadata(mount.join(".")).expect("the mount answers");
    println!("mount command to first answer: {:?}", began.elapsed());
    let pid = world.vmds().pid;
    println!("VMDS right after its start: {} KiB resident", resident_kib(pid));

    let native = measure(native_dir.path(), files);
    let null = measure(null_dir.path(), files);
    let ours = measure(&mount, files);
    for (what, ours, null, native) in [
        ("create, close", ours.create, null.create, native.create),
        ("stat, warm", ours.stat, null.stat, native.stat),
        ("list and stat, per entry", ours.list, null.list, native.list),
        ("open, close", ours.open, null.open, native.open),
        ("unlink", ours.unlink, null.unlink, native.unlink),
    ] {
        table.row(what, "vmds", ours, ("null FUSE", null));
        table.row(what, "vmds", ours, ("native", native));
    }
    sequential(&mount, native_dir.path(), &mut table);
    println!("VMDS after {files} files: {} KiB resident", resident_kib(pid));
    println!("{}", table.render());
    session.umount_and_join().expect("unmount the null file system");
}

fn measure(dir: &Path, files: u32) -> Costs {
    let paths: Vec<PathBuf> = (0..files).map(|number| dir.join(format!("f{number}"))).collect();
    let each = |act: &dyn Fn(&Path)| once(|| paths.iter().for_each(|path| act(path))).0 / files;
    Costs {
        create: each(&|path| drop(File::create_new(path).expect("create"))),
        stat: each(&|path| assert!(fs::metadata(path).expect("stat").is_file())),
        list: once(|| {
            let listed =
                fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").metadata().expect("stat"));
            assert_eq!(listed.count(), paths.len());
        })
        .0 / files,
        open: each(&|path| drop(File::open(path).expect("open"))),
        unlink: each(&|path| fs::remove_file(path).expect("unlink")),
    }
}

/// Large files, written and read back from the page cache of the pool.
fn sequential(mount: &Path, native: &Path, table: &mut Table) {
    const SIZE: usize = 512 << 20;
    let chunk = vec![7_u8; 1 << 20];
    let mut took = Vec::new();
    for dir in [mount, native] {
        let path = dir.join("large");
        let write = once(|| {
            let mut file = File::create(&path).expect("create");
            (0..SIZE / chunk.len())
                .for_each(|_| std::io::Write::write_all(&mut file, &chunk).expect("write"));
        });
        let read = || {
            once(|| std::io::copy(&mut File::open(&path).expect("open"), &mut std::io::sink()).expect("read"))
        };
        let mut reads: Vec<Duration> = (0..5).map(|_| read().0).collect();
        reads.sort_unstable();
        took.push((write.0, reads[2]));
        fs::remove_file(&path).expect("unlink");
    }
    table.row("write 512 MiB", "vmds", took[0].0, ("native", took[1].0));
    table.row("read 512 MiB", "vmds", took[0].1, ("native", took[1].1));
}

/// The programs as they were built beside this one.
fn binaries() -> Binaries {
    let this = std::env::current_exe().expect("this program has a path");
    let dir = this.ancestors().nth(2).expect("benches are two levels deep");
    let named = |name: &str| {
        let path = dir.join(name);
        assert!(path.exists(), "{} is missing: run `cargo build --release` first", path.display());
        path
    };
    Binaries { controller: named("vmds-controller"), ctl: named("vmdsctl"), vmds: named("vmds") }
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the VMDS is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

//! Promise: a pool that does not answer stops nobody for long, and nobody but those who use it.
//!
//! The pool is a real file system that stops answering. It would do so for minutes; everything here has to be answered
//! before.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tests::{FarDirectory, Hanging, Hangs, World, wait_until};

use crate::help::{SOON, assert_errno, binaries, names};

/// After this long something is not bounded. The pool hangs for longer.
const BOUND: Duration = Duration::from_secs(100);
/// Longer than it takes to notice that a VMDS gives no sign of life.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
const CHUNK: usize = 64 * 1024;

/// A controller with a pool `far` that can hang. Dropped, it ends before its pool is unmounted.
struct Setup {
    world: World,
    far: FarDirectory,
}

impl Setup {
    #[track_caller]
    fn new() -> Self {
        Self::with_timeout("1s")
    }

    #[track_caller]
    fn with_timeout(pool_timeout: &str) -> Self {
        let far = FarDirectory::mount();
        let config = far.path().with_file_name("config.toml");
        // One shard for all: what locks it locks everybody out.
        fs::write(&config, format!("pool_timeout = '{pool_timeout}'\nshards = 1\n")).unwrap();
        let world = World::start_with(binaries(), &["--config", config.to_str().unwrap()]);
        world.ctl(&["pool", "add", "far", "--posix", far.path().to_str().unwrap()]);
        Self { world, far }
    }

    #[track_caller]
    fn tenant(&self, name: &str, options: &[&str]) -> PathBuf {
        self.world.ctl(&[&["tenant", "create", name], options].concat());
        self.world.mount(name)
    }
}

/// Something that is being waited for.
struct Pending<T>(Receiver<T>, &'static str);

/// Does something elsewhere: it may hang.
fn begin<T: Send + 'static>(what: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Pending<T> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(work());
    });
    Pending(told, what)
}

impl<T> Pending<T> {
    #[track_caller]
    fn within_bound(self) -> T {
        self.0.recv_timeout(BOUND).unwrap_or_else(|_| panic!("not answered within {BOUND:?}: {}", self.1))
    }
}

impl<T> Pending<io::Result<T>> {
    #[track_caller]
    fn fails(self) {
        eprintln!("{}", self.1);
        assert_errno(self.within_bound(), Errno::IO);
    }
}

fn bytes(of: u8) -> Vec<u8> {
    vec![of; CHUNK]
}

/// Writes a file of three chunks.
fn write_file(path: &Path) -> File {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    (0..3).for_each(|n| file.write_all_at(&bytes(n), u64::from(n) * CHUNK as u64).unwrap());
    file
}

fn read_chunk(file: &File, number: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; CHUNK];
    file.read_exact_at(&mut bytes, (number * CHUNK) as u64)?;
    Ok(bytes)
}

/// Everything that touches the bytes of `file` and of `other`, a closed file beside it, fails in time.
#[track_caller]
fn all_fails(who: &'static str, file: &File, other: &Path) {
    eprintln!("{who}:");
    let on = || file.try_clone().unwrap();
    // The kernel of a mount keeps what it has read; these bytes it has not.
    let (reader, writer, syncer, allocator) = (on(), on(), on(), on());
    let (opened, created) = (other.to_owned(), other.with_extension("new"));
    let pending = [
        begin("read", move || read_chunk(&reader, 2).map(drop)),
        begin("write", move || writer.write_all_at(&bytes(7), CHUNK as u64)),
        begin("fsync", move || syncer.sync_all()),
        begin("fallocate", move || {
            Ok(rustix::fs::fallocate(&allocator, FallocateFlags::empty(), 0, CHUNK as u64 * 4)?)
        }),
        begin("open", move || File::options().read(true).write(true).open(opened).map(drop)),
        begin("create", move || File::create_new(created).map(drop)),
    ];
    pending.into_iter().for_each(Pending::fails);
}

/// What the kernel has in memory it does not ask for.
fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
}

#[track_caller]
fn works(dir: &Path) {
    fs::create_dir(dir.join("directory")).unwrap();
    fs::write(dir.join("directory/file"), bytes(9)).unwrap();
    assert_eq!(fs::read(dir.join("directory/file")).unwrap(), bytes(9));
    fs::remove_dir_all(dir.join("directory")).unwrap();
}

#[test]
fn requests_for_bytes_fail_in_time_and_all_is_right_when_the_pool_answers_again() {
    let setup = Setup::new();
    let plain = setup.tenant("plain", &["--pool", "far"]);
    let metered = setup.tenant("metered", &["--pool", "far", "--quota-bytes", "1GiB"]);
    let grantee = setup.tenant("grantee", &[]);
    fs::create_dir(plain.join("shared")).unwrap();
    setup.world.ctl(&["share", "grant", "--rw", "plain:/shared", "grantee:/shared"]);
    let homes = [
        ("without a quota", &plain),
        ("with a quota", &metered),
        ("through a share", &grantee.join("shared")),
    ];
    let open: Vec<_> = homes
        .iter()
        .map(|(who, dir)| {
            write_file(&dir.join("closed")).sync_all().unwrap();
            (*who, write_file(&dir.join("open")), dir.join("closed"))
        })
        .collect();
    drop_caches();
    let hanging = setup.far.hang(Hangs::Everything);
    open.iter().for_each(|(who, file, closed)| all_fails(who, file, closed));
    drop(hanging);
    for (who, file, closed) in &open {
        eprintln!("{who}, again:");
        wait_until("the pool is used again", SOON, || read_chunk(file, 2).is_ok());
        assert_eq!(read_chunk(file, 0).unwrap(), bytes(0));
        assert_eq!(read_chunk(file, 2).unwrap(), bytes(2));
        // A write that has failed may have been made or not, whole.
        let second = read_chunk(file, 1).unwrap();
        assert!(second == bytes(1) || second == bytes(7), "torn");
        file.write_all_at(&bytes(8), CHUNK as u64).unwrap();
        file.sync_all().unwrap();
        assert_eq!(read_chunk(file, 1).unwrap(), bytes(8));
        assert_eq!(fs::read(closed).unwrap(), [bytes(0), bytes(1), bytes(2)].concat());
        fs::remove_file(closed).unwrap();
        works(closed.parent().unwrap());
    }
    drop(open);
    for (who, dir) in homes {
        let size = fs::metadata(dir.join("open")).unwrap().len() as usize;
        assert!(size == 3 * CHUNK || size == 4 * CHUNK, "{who}: {size}");
        assert_eq!(fs::read(dir.join("open")).unwrap().len(), size);
        assert!(!names(dir).contains(&"closed.new".into()), "what could not be made is not there");
    }
    setup.world.ctl(&["check"]);
}

#[test]
fn whoever_uses_another_pool_notices_nothing() {
    let setup = Setup::new();
    let hit = setup.tenant("hit", &["--pool", "far", "--quota-bytes", "1GiB"]);
    let other = setup.tenant("other", &[]);
    let metered = setup.tenant("metered", &["--quota-bytes", "1GiB"]);
    fs::create_dir(hit.join("shared")).unwrap();
    setup.world.ctl(&["share", "grant", "--rw", "hit:/shared", "metered:/shared"]);
    let file = write_file(&hit.join("file"));
    let shared = write_file(&metered.join("shared/file"));
    drop_caches();
    let hanging = setup.far.hang(Hangs::Everything);
    // More than there are threads that wait for storage.
    let reads: Vec<_> = [&file, &shared]
        .into_iter()
        .flat_map(|file| (0..8).map(|_| file.try_clone().unwrap()))
        .map(|file| begin("read", move || read_chunk(&file, 2).map(drop)))
        .collect();
    for dir in [&other, &metered] {
        let dir = dir.clone();
        begin("another pool", move || works(&dir)).within_bound();
    }
    reads.into_iter().for_each(Pending::fails);
    drop(hanging);
    setup.world.ctl(&["check"]);
}

#[test]
fn closing_and_cutting_files_on_a_hung_pool_locks_nobody_out() {
    // Longer than anybody here waits: the controller is at it all the time.
    let setup = Setup::with_timeout("10m");
    let hit = setup.tenant("hit", &["--pool", "far"]);
    let second = setup.tenant("second", &["--pool", "far"]);
    let other = setup.tenant("other", &[]);
    let (closed, cut) = (write_file(&hit.join("closed")), write_file(&second.join("cut")));
    let hanging = setup.far.hang(Hangs::Everything);
    // Each asks the pool, for a size or for a change of it, and has to note the answer in the one shard.
    begin("close", move || drop(closed)).within_bound();
    let cutting = begin("cut", move || cut.set_len(1));
    let dir = other.clone();
    begin("another pool", move || works(&dir)).within_bound();
    drop(hanging);
    cutting.within_bound().unwrap();
    assert_eq!(fs::read(second.join("cut")).unwrap(), [0]);
    wait_until("the closed file has its size", SOON, || {
        fs::metadata(hit.join("closed")).is_ok_and(|closed| closed.len() == 3 * CHUNK as u64)
    });
    setup.world.ctl(&["check"]);
}

#[test]
fn no_vmds_is_replaced_because_the_controller_waits_for_a_pool_on_its_behalf() {
    let setup = Setup::with_timeout("10m");
    let owner = setup.tenant("owner", &["--pool", "far"]);
    fs::create_dir(owner.join("shared")).unwrap();
    fs::write(owner.join("shared/file"), "contents").unwrap();
    let before = setup.world.vmds();
    let grantee = setup.tenant("grantee", &[]);
    let after: Vec<_> = setup.world.vmdses();
    setup.world.ctl(&["share", "grant", "--rw", "owner:/shared", "grantee:/shared"]);
    assert_eq!(names(&grantee.join("shared")), ["file"]);
    let hanging = setup.far.hang(Hangs::Everything);
    let path = grantee.join("shared/file");
    let opening = begin("open", move || fs::read(path));
    // What the grantee has seen changes, again and again; its VMDS has to say that it has forgotten, and be heard.
    let (at, since) = (owner.join("shared"), Instant::now());
    begin("changes", move || {
        while since.elapsed() < NOTICED_WITHIN {
            fs::create_dir(at.join("new")).unwrap();
            fs::remove_dir(at.join("new")).unwrap();
        }
    })
    .within_bound();
    drop(hanging);
    assert_eq!(opening.within_bound().unwrap(), b"contents");
    assert!(after.contains(&before) && after.iter().all(|vmds| vmds.is_alive()), "{}", setup.world.log());
}

#[test]
fn names_and_attributes_stay_while_the_pool_hangs() {
    let setup = Setup::new();
    let dir = setup.tenant("alice", &["--pool", "far", "--quota-bytes", "1GiB"]);
    let file = write_file(&dir.join("open"));
    let hanging = setup.far.hang(Hangs::Everything);
    let at = dir.clone();
    begin("names", move || {
        fs::create_dir(at.join("directory")).unwrap();
        std::os::unix::fs::symlink("open", at.join("symlink")).unwrap();
        fs::rename(at.join("directory"), at.join("moved")).unwrap();
        assert_eq!(names(&at), ["moved", "open", "symlink"]);
        fs::remove_dir(at.join("moved")).unwrap();
    })
    .within_bound();
    // Of a file that is being written only the pool knows the size: an answer or an error, but soon.
    let (path, at) = (dir.join("open"), file.try_clone().unwrap());
    drop(begin("stat", move || fs::metadata(path).map(drop)).within_bound());
    drop(begin("fstat", move || at.metadata().map(drop)).within_bound());
    let of = dir.clone();
    drop(begin("statfs", move || rustix::fs::statvfs(&of)).within_bound());
    drop(hanging);
    assert_eq!(file.metadata().unwrap().len(), 3 * CHUNK as u64);
    setup.world.ctl(&["check"]);
}

/// A program that has begun to wait for the pool.
fn stuck_program<'a>(file: &Path, far: &'a FarDirectory) -> (Child, Hanging<'a>) {
    let hanging = far.hang(Hangs::Bytes);
    let mut program = Command::new("dd");
    program.args(["iflag=direct", "bs=4k", "of=/dev/null"]).arg(format!("if={}", file.display()));
    let child = program.stderr(Stdio::null()).spawn().unwrap();
    wait_until("it waits", SOON, || {
        let state = fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap_or_default();
        state.contains("request_wait_answer") || state.contains("fuse")
    });
    (child, hanging)
}

#[test]
fn a_program_that_waits_for_a_hung_pool_can_be_killed() {
    let setup = Setup::new();
    for options in [&["--pool", "far"][..], &["--pool", "far", "--quota-bytes", "1GiB"]] {
        let dir = setup.tenant(&format!("tenant-{}", options.len()), options);
        write_file(&dir.join("file"));
        let (mut child, hanging) = stuck_program(&dir.join("file"), &setup.far);
        child.kill().unwrap();
        begin("the end", move || child.wait().unwrap()).within_bound();
        drop(hanging);
        assert_eq!(fs::read(dir.join("file")).unwrap(), [bytes(0), bytes(1), bytes(2)].concat());
    }
}

#[test]
fn what_was_closed_while_the_pool_hung_has_its_size_when_it_answers_again() {
    let setup = Setup::new();
    let dir = setup.tenant("alice", &["--pool", "far", "--quota-bytes", "1GiB"]);
    let file = write_file(&dir.join("file"));
    let hanging = setup.far.hang(Hangs::Bytes);
    let writer = file.try_clone().unwrap();
    begin("write", move || writer.write_all_at(&bytes(4), 4 * CHUNK as u64)).fails();
    drop(file);
    // The controller takes requests in turn: had it been told of the close, it would have settled the file by now.
    (0..8).for_each(|n| fs::create_dir(dir.join(format!("directory-{n}"))).unwrap());
    drop(hanging);
    // The write that was given up is made after all: it was under way. Its file is not settled before.
    wait_until("the write that hung has its effect", SOON, || {
        fs::read(dir.join("file")).is_ok_and(|all| all.len() == 5 * CHUNK && all[4 * CHUNK..] == bytes(4))
    });
    assert_eq!(fs::metadata(dir.join("file")).unwrap().len(), 5 * CHUNK as u64);
    assert_eq!(fs::read_dir(setup.far.behind()).unwrap().count(), 1);
    setup.world.ctl(&["check"]);
}

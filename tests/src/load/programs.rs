//! Loads that are programs of their own, because they need another process or what only a program does: memory
//! mappings, locks, a database.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock, flock};

use super::Stop;
use crate::process::{ok, wait_child};
use crate::wait::wait_until;

/// How long a program may take to end when it is told to.
const END_DEADLINE: Duration = Duration::from_secs(120);
/// How long loads go on at most.
const WORK_DEADLINE: Duration = Duration::from_secs(3600);
/// Bytes of the file that is mapped.
const MAPPED: usize = 1 << 20;
/// Bytes of a page.
const PAGE: usize = 4096;

/// `ended()`: whether the program has been told to end, which is the end of its standard input.
const PRELUDE: &str = "import fcntl, mmap, os, select, sqlite3, sys\n\
    def ended(seconds=0): return bool(select.select([sys.stdin], [], [], seconds)[0])\n";

/// Counts up in each page of the mapping.
const MAP_WRITER: &str = "m = mmap.mmap(os.open('mapped', os.O_RDWR), 1 << 20)\n\
    n = 0\n\
    while not ended(0.001):\n\
    \x20   n += 1\n\
    \x20   for page in range(0, 1 << 20, 4096): m[page:page + 8] = n.to_bytes(8, 'little')\n\
    \x20   if n % 20 == 0: m.flush()\n\
    m.flush()\n\
    print(n)\n";

/// No page ever goes back, neither in the mapping nor in the file.
const MAP_READER: &str = "fd = os.open('mapped', os.O_RDONLY)\n\
    m = mmap.mmap(fd, 1 << 20, prot=mmap.PROT_READ)\n\
    seen, n = [0] * 256, 0\n\
    while not ended(0.001):\n\
    \x20   for page in range(256):\n\
    \x20       at = page * 4096\n\
    \x20       for bytes in m[at:at + 8], os.pread(fd, 8, at):\n\
    \x20           value = int.from_bytes(bytes, 'little')\n\
    \x20           assert value >= seen[page], f'page {page} went from {seen[page]} to {value}'\n\
    \x20           seen[page] = value\n\
    \x20   n += 1\n\
    print(n)\n";

const DB_SET_UP: &str = "db = sqlite3.connect('db')\n\
    assert db.execute('pragma journal_mode=wal').fetchone()[0] == 'wal'\n\
    db.execute('create table t (writer text, n integer, filler text)')\n\
    db.commit()\n";

/// One transaction after another; says how many were acknowledged.
const DB_WRITER: &str = "db = sqlite3.connect('db', timeout=60, isolation_level=None)\n\
    n = 0\n\
    while not ended():\n\
    \x20   db.execute('begin immediate')\n\
    \x20   db.execute('insert into t values (?, ?, ?)', (sys.argv[1], n, 'x' * 500))\n\
    \x20   db.execute('commit')\n\
    \x20   n += 1\n\
    \x20   if n % 100 == 0: db.execute('pragma wal_checkpoint(passive)')\n\
    print(n)\n";

const DB_LOOK: &str = "db = sqlite3.connect('db', timeout=60)\n\
    assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'\n\
    for writer, count in zip('ab', sys.argv[1:]):\n\
    \x20   got = db.execute('select count(*), count(distinct n) from t where writer = ?', writer).fetchone()\n\
    \x20   assert got == (int(count), int(count)), f'{writer}: {count} acknowledged, there are {got}'\n";

/// Tries both locks that another process holds.
const LOCK_TRIER: &str = "posix, bsd = os.open('posix', os.O_RDWR), os.open('flock', os.O_RDWR)\n\
    n = 0\n\
    while not ended(0.005):\n\
    \x20   for lock, fd in (fcntl.lockf, posix), (fcntl.flock, bsd):\n\
    \x20       try: lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
    \x20       except (BlockingIOError, PermissionError): n += 1\n\
    \x20       else: sys.exit(f'{lock} was given while somebody had it')\n\
    print(n)\n";

const LOCK_TAKER: &str = "fcntl.lockf(os.open('posix', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
    fcntl.flock(os.open('flock', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)\n";

/// A program that runs until it is told to end.
struct Program {
    child: Child,
    out: File,
    err: File,
}

impl Program {
    fn start(dir: &Path, source: &str, arguments: &[&str]) -> Self {
        let (out, err) = [(); 2].map(|()| tempfile::tempfile().expect("make a temporary file")).into();
        let clone = |file: &File| Stdio::from(file.try_clone().expect("duplicate a descriptor"));
        let child = python(dir, source)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(clone(&out))
            .stderr(clone(&err))
            .spawn()
            .expect("start python3");
        Self { child, out, err }
    }

    /// Waits until it is time, or the program has ended by itself.
    fn run(&mut self, stop: &Stop) {
        wait_until("it is time to stop", WORK_DEADLINE, || {
            stop.is_set() || self.child.try_wait().expect("ask for a child's state").is_some()
        });
    }

    /// Tells it to end, and gives the number it has printed.
    fn end(mut self) -> u64 {
        drop(self.child.stdin.take());
        let status = wait_child(&mut self.child, END_DEADLINE);
        let said = contents(&mut self.err);
        let Some(status) = status else { panic!("a program did not end in {END_DEADLINE:?}\n{said}") };
        assert!(status.success(), "{status}\n{said}");
        contents(&mut self.out).trim().parse().expect("a program prints a number")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn contents(file: &mut File) -> String {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).expect("rewind a temporary file");
    file.read_to_string(&mut text).expect("read a temporary file");
    text
}

fn python(dir: &Path, source: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-c").arg(format!("{PRELUDE}{source}")).current_dir(dir);
    command
}

/// One process writes a file in `dir` through a mapping, another watches it through a mapping and through reads. Answers
/// how often the whole file was written.
pub fn mapped_file(dir: &Path, stop: &Stop) -> u64 {
    fs::write(dir.join("mapped"), vec![0; MAPPED]).expect("write a file");
    let reader = Program::start(dir, MAP_READER, &[]);
    let mut writer = Program::start(dir, MAP_WRITER, &[]);
    writer.run(stop);
    let rounds = writer.end();
    assert!(reader.end() > 0, "the reader has read");
    let bytes = fs::read(dir.join("mapped")).expect("read a file");
    for page in bytes.chunks(PAGE) {
        assert_eq!(page.first_chunk().map(|n| u64::from_le_bytes(*n)), Some(rounds));
    }
    rounds
}

/// Two processes commit to one SQLite database in `dir`, with a write-ahead log. Answers how many commits were
/// acknowledged; all of them must be there.
pub fn databases(dir: &Path, stop: &Stop) -> u64 {
    ok(&mut python(dir, DB_SET_UP));
    let mut writers = ["a", "b"].map(|name| Program::start(dir, DB_WRITER, &[name]));
    writers[0].run(stop);
    let counts = writers.map(Program::end);
    ok(python(dir, DB_LOOK).args(counts.map(|count| count.to_string())));
    counts.iter().sum()
}

/// Holds a POSIX lock and a BSD lock while another process tries to take them. Answers how often it was refused.
pub fn held_locks(dir: &Path, stop: &Stop) -> u64 {
    let open = |name: &str| {
        let new = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join(name));
        new.expect("create a file")
    };
    let (posix, bsd) = (open("posix"), open("flock"));
    fcntl_lock(&posix, FlockOperation::NonBlockingLockExclusive).expect("take a POSIX lock");
    flock(&bsd, FlockOperation::NonBlockingLockExclusive).expect("take a BSD lock");
    let mut trier = Program::start(dir, LOCK_TRIER, &[]);
    trier.run(stop);
    let refused = trier.end();
    posix.write_all_at(b"still open", 0).expect("write to a locked file");
    drop((posix, bsd));
    ok(&mut python(dir, LOCK_TAKER));
    refused
}

//! Promise: when the controller and the VMDS die together, what was synced is there after the next start.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::io::Errno;
use tests::{Random, full, wait_until};

use crate::crash_vmds::{room, seed};
use crate::help::{SOON, world};

/// Workers that write at the same time.
const WORKERS: u64 = 3;
/// Most entries synced between two crashes.
const SYNCED_MAX: u64 = 60;

/// What one round of a worker leaves behind.
fn path(number: u64) -> [String; 3] {
    [format!("file-{number}"), format!("dir-{number}"), format!("link-{number}")]
}

fn contents(worker: u64, number: u64) -> Vec<u8> {
    Random::new(worker << 32 | number).bytes(1 + number as usize * 37 % 9000)
}

/// Makes a file, a directory and a second name, and syncs them.
fn make(dir: &Path, worker: u64, number: u64) -> io::Result<()> {
    let [file, sub, link] = path(number);
    let draft = dir.join(format!("{file}.new"));
    let mut new = File::create_new(&draft)?;
    new.write_all(&contents(worker, number))?;
    new.sync_all()?;
    fs::rename(&draft, dir.join(&file))?;
    fs::create_dir(dir.join(&sub))?;
    fs::hard_link(dir.join(&file), dir.join(sub).join(link))?;
    File::open(dir)?.sync_all()
}

/// Everything that a worker has synced is there.
fn look(dir: &Path, worker: u64, synced: &[u64]) {
    for number in synced {
        let [file, sub, link] = path(*number);
        for path in [dir.join(file), dir.join(sub).join(link)] {
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{} was synced: {e}", path.display()));
            assert!(bytes == contents(worker, *number), "{}: {} wrong bytes", path.display(), bytes.len());
        }
    }
}

/// Works until the mount is gone. Answers the numbers of what was synced.
fn work(dir: &Path, worker: u64, first: u64, done: &AtomicU64) -> Vec<u64> {
    let mut synced = Vec::new();
    for number in first.. {
        match make(dir, worker, number) {
            Ok(()) => synced.push(number),
            Err(error) => {
                let gone = [Errno::NOTCONN, Errno::CONNABORTED];
                let known = gone.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()));
                assert!(known, "{}: {error}", dir.display());
                break;
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    synced
}

#[test]
fn what_was_synced_is_there_after_the_controller_and_the_vmds_were_killed_together() {
    let mut world = world();
    let mount = world.mounted("alice");
    let dirs: Vec<_> = (0..WORKERS).map(|worker| room(&mount, &format!("worker-{worker}"))).collect();
    let mut random = Random::new(seed());
    let mut synced = vec![Vec::new(); dirs.len()];
    let rounds = if full() { 20 } else { 4 };
    for round in 0..rounds {
        let done = AtomicU64::new(0);
        let enough = 1 + random.below(SYNCED_MAX);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|worker| {
                    let (dir, done) = (&dirs[worker as usize], &done);
                    scope.spawn(move || work(dir, worker, round << 20, done))
                })
                .collect();
            wait_until("the workers work", SOON, || done.load(Ordering::Relaxed) >= enough);
            let vmds = world.vmds();
            world.kill_controller();
            vmds.kill();
            for (worker, all) in workers.into_iter().zip(&mut synced) {
                all.extend(worker.join().unwrap());
            }
        });
        world.start_controller();
        world.await_mounts(1);
        for (worker, dir) in dirs.iter().enumerate() {
            look(dir, worker as u64, &synced[worker]);
        }
        world.ctl(&["check"]);
    }
    let found = synced.iter().map(Vec::len).sum::<usize>();
    println!(
        "crash figures| both together | files, directories and links, synced | {rounds} | {found} | 0 | - | - | - | - |"
    );
}

//! What must still work in the sandbox: everything a VMDS does.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use address_map::wire::{AtDoor, FrameSocket};
use rustix::fs::{AtFlags, FallocateFlags, SeekFrom, StatxFlags};
use rustix::io::ReadWriteFlags;

/// Threads that work at the same time: more than a VMDS has.
const THREADS: usize = 32;
/// Bytes each of them needs.
const BYTES: usize = 4 << 20;

/// Does it all on inherited descriptors, and panics if something does not work.
pub(crate) fn work(file: BorrowedFd<'_>, second: BorrowedFd<'_>, socket: OwnedFd) {
    leased_files(file, second);
    let received = link(socket);
    leased_files(received.as_fd(), second);
    threads_and_memory();
    let before = Instant::now();
    assert!(SystemTime::now() > SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    assert!(Instant::now() >= before);
}

fn leased_files(file: BorrowedFd<'_>, second: BorrowedFd<'_>) {
    rustix::io::pwrite(file, b"0123456789", 0).unwrap();
    let mut buffer = [0; 4];
    assert_eq!(rustix::io::pread(file, &mut buffer, 4).unwrap(), 4);
    assert_eq!(&buffer, b"4567");
    let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    let quick = rustix::io::preadv2(file, &mut parts, 0, ReadWriteFlags::NOWAIT);
    assert_ne!(quick, Err(rustix::io::Errno::NOSYS));
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 8192).unwrap();
    assert_eq!(rustix::fs::fstat(file).unwrap().st_size, 8192);
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::SIZE).unwrap();
    assert_eq!(stat.stx_size, 8192);
    rustix::fs::seek(file, SeekFrom::Data(0)).unwrap();
    let (mut from, mut to) = (0, 0);
    let copied = rustix::fs::copy_file_range(file, Some(&mut from), second, Some(&mut to), 10).unwrap();
    assert_eq!(copied, 10);
    drop(file.try_clone_to_owned().unwrap());
}

/// Answers a frame and gets a file that was opened outside.
fn link(socket: OwnedFd) -> File {
    let socket = FrameSocket::from(socket);
    socket.set_send_timeout(Duration::from_secs(10)).unwrap();
    socket.send(&AtDoor::Controller, None).unwrap();
    let (_, file) = socket.receive::<AtDoor>(&mut Vec::new()).unwrap().unwrap();
    File::from(file.unwrap())
}

fn threads_and_memory() {
    let (done, results) = mpsc::channel();
    for number in 0..THREADS {
        let done = done.clone();
        let work = move || {
            let mut bytes = vec![1u8; BYTES];
            bytes.resize(2 * BYTES, 2);
            let table: HashMap<usize, usize> = (0..1000).map(|n| (n, number)).collect();
            done.send(table[&7] + usize::from(bytes[0] == 2)).unwrap();
        };
        std::thread::Builder::new().name(format!("work-{number}")).spawn(work).unwrap();
    }
    let sum: usize = results.iter().take(THREADS).sum();
    assert_eq!(sum, (0..THREADS).sum::<usize>());
}

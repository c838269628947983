//! Open files: leases, bytes, charges, and what happens when they are recalled.

use std::os::fd::OwnedFd;

use address_map::wire::{Lease, SessionOptions, Stale, ToController, ToVmds};

use super::*;
use crate::testing::file;

const WRITER: Lease =
    Lease { write: true, backing: Some(9), floating: false, remote: false, alone: true, near: None };
const READER: Lease =
    Lease { write: false, backing: Some(9), floating: false, remote: false, alone: true, near: None };

fn volatile(size: u64) -> Attr {
    Attr { volatile: true, ..file_attr(size) }
}

/// Opens a file, playing the controller.
fn open(fs: &Arc<Fs>, controller: &FakeController, of: NodeId, write: bool, bytes: &OwnedFd) -> Opened {
    let result = start(|done| fs.open(of, write, done));
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::Lease { node: of, write, fill: false });
    let lease = if write { WRITER } else { READER };
    let attr = if write { volatile(0) } else { file_attr(0) };
    controller.lease(id, attr, lease, bytes);
    result.recv().unwrap().unwrap()
}

fn read(fs: &Arc<Fs>, of: NodeId, offset: u64) -> Receiver<Result<Vec<u8>, Errno>> {
    start(|done| fs.read(of, offset, 4096, move |bytes| done(bytes.map(<[u8]>::to_vec))))
}

fn write(fs: &Arc<Fs>, of: NodeId, offset: u64, data: &[u8]) -> Receiver<Result<u32, Errno>> {
    start(|done| fs.write(of, WriteTo::Offset(offset), data.to_vec(), None, done))
}

#[test]
fn a_file_opens_once_for_all_readers_and_is_read_and_written() {
    let (fs, controller) = setup();
    let bytes = file(b"hello");
    let opened = open(&fs, &controller, node(7), false, &bytes);
    assert_eq!(opened.backing, None, "the kernel does not offer passthrough here");
    let again = start(|done| fs.open(node(7), false, done));
    assert_eq!(at_once(&again).unwrap(), opened);
    assert_eq!(read(&fs, node(7), 1).recv().unwrap().unwrap(), b"ello");
    let writer = open(&fs, &controller, node(7), true, &bytes);
    assert_ne!(writer.handle, opened.handle);
    assert_eq!(write(&fs, node(7), 5, b" world").recv().unwrap().unwrap(), 6);
    assert_eq!(read(&fs, node(7), 0).recv().unwrap().unwrap(), b"hello world");
    // Size and times of a file being written come from the file.
    assert_eq!(getattr(&fs, node(7)).recv().unwrap().unwrap().attr.size, 11);

    let released = start(|done| fs.release(node(7), writer.handle, done));
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::CloseWrite { node: node(7) });
    assert!(released.try_recv().is_err(), "not before the controller knows the size");
    controller.answer(id, Answer::Attr(file_attr(11)));
    released.recv().unwrap().unwrap();
    let shown = at_once(&getattr(&fs, node(7))).unwrap();
    assert_eq!((shown.attr.size, shown.attr.volatile), (11, false));
}

#[test]
fn passthrough_is_for_own_files_and_quotas_see_the_writers() {
    let options = SessionOptions { metered: true, ..FakeController::options() };
    let (fs, controller) = FakeController::with_fs(LinkLimits::default(), options);
    fs.allow_passthrough();
    let bytes = file(b"");
    let reader = open(&fs, &controller, node(7), false, &bytes);
    assert_eq!((reader.backing, reader.seen, reader.keep_cache), (Some(9), false, false));
    let writer = open(&fs, &controller, node(7), true, &bytes);
    assert_eq!((writer.backing, writer.seen), (Some(9), true));
    let other = open(&fs, &controller, foreign(7), true, &bytes);
    assert_eq!((other.backing, other.seen, other.keep_cache), (None, false, false));
}

#[test]
fn growth_is_charged_before_it_happens() {
    let options = SessionOptions { metered: true, ..FakeController::options() };
    let (fs, controller) = FakeController::with_fs(LinkLimits::default(), options);
    let bytes = file(b"12345");
    open(&fs, &controller, node(7), true, &bytes);
    assert_eq!(write(&fs, node(7), 0, b"xxxxx").recv().unwrap().unwrap(), 5);
    assert!(controller.is_quiet(), "nothing grew");
    let result = write(&fs, node(7), 4, b"abc");
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::Grow { node: node(7), size: 7 });
    controller.answer(id, Answer::Done);
    assert_eq!(result.recv().unwrap().unwrap(), 3);
    let result = write(&fs, node(7), 7, b"d");
    let (id, _) = controller.next_call();
    controller.refuse(id, Refusal::Quota);
    assert_eq!(result.recv().unwrap().unwrap_err().code(), libc::EDQUOT);
    assert_eq!(read(&fs, node(7), 0).recv().unwrap().unwrap(), b"xxxxabc");
    let result = start(|done| fs.fallocate(Place { node: node(7), offset: 0 }, 100, 0, done));
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::Grow { node: node(7), size: 100 });
    controller.refuse(id, Refusal::Quota);
    assert_eq!(result.recv().unwrap().unwrap_err().code(), libc::EDQUOT);
}

#[test]
fn an_orphan_is_readable_until_it_is_closed() {
    let (fs, controller) = setup();
    let opened = open(&fs, &controller, node(7), false, &file(b"hello"));
    controller.say(&ToVmds::Orphaned { node: node(7) });
    controller.settle(&fs);
    assert_eq!(read(&fs, node(7), 0).recv().unwrap().unwrap(), b"hello");
    let released = start(|done| fs.release(node(7), opened.handle, done));
    released.recv().unwrap().unwrap();
    assert_eq!(controller.next(), ToController::LeaseDropped { node: node(7) });
}

#[test]
fn removing_the_last_name_of_a_closed_file_drops_its_lease() {
    let (fs, controller) = setup();
    let opened = open(&fs, &controller, node(7), false, &file(b""));
    start(|done| fs.release(node(7), opened.handle, done)).recv().unwrap().unwrap();
    let removed = start(|done| fs.unlink(REQUEST, ROOT, b"a", done));
    let (id, _) = controller.next_call();
    let target = with_node(node(7), Attr { nlink: 0, ..file_attr(0) });
    controller.answer(id, Answer::Removed { target, parent: dir_attr() });
    removed.recv().unwrap().unwrap();
    assert_eq!(controller.next(), ToController::LeaseDropped { node: node(7) });
}

#[test]
fn a_recalled_slot_fails_its_handles() {
    let (fs, controller) = setup();
    let mine = open(&fs, &controller, node(7), false, &file(b"mine"));
    open(&fs, &controller, foreign(7), true, &file(b"theirs"));
    assert_eq!(read(&fs, foreign(7), 0).recv().unwrap().unwrap(), b"theirs");
    controller.say(&ToVmds::Stale { fence: 5, items: vec![Stale::Slot(Slot(3))] });
    controller.settle(&fs);
    assert!(fs.leases.held(foreign(7)).is_none());
    let result = read(&fs, foreign(7), 0);
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::Lease { node: foreign(7), write: false, fill: true });
    controller.refuse(id, Refusal::NotFound);
    assert_eq!(result.recv().unwrap().unwrap_err().code(), libc::EIO);
    assert_eq!(read(&fs, node(7), 0).recv().unwrap().unwrap(), b"mine");
    start(|done| fs.release(node(7), mine.handle, done)).recv().unwrap().unwrap();
}

#[test]
fn a_created_file_is_open_for_writing() {
    let (fs, controller) = setup();
    let caller = address_map::attr::Caller { uid: 0, gid: 0 };
    let result = start(|done| fs.create(REQUEST, ROOT, b"new", caller, NewMode::exactly(0o644), true, done));
    let (id, call) = controller.next_call();
    assert!(matches!(call, Call::Create { .. }));
    let answer = Answer::Created { file: with_node(node(8), volatile(0)), parent: dir_attr(), lease: WRITER };
    controller.answer_with(id, answer, &file(b""));
    let created = result.recv().unwrap().unwrap();
    assert_eq!(created.file.node, node(8));
    assert_eq!(created.file.attr_ttl, fs.ttl, "this mount keeps its own size true");
    assert_eq!(write(&fs, node(8), 0, b"abc").recv().unwrap().unwrap(), 3);
    assert!(matches!(at_once(&lookup(&fs, ROOT, "new")), Ok(Looked::Found(_))));
    let _released = start(|done| fs.release(node(8), created.opened.handle, done));
    assert!(matches!(controller.next_call().1, Call::CloseWrite { .. }));
}

#[test]
fn the_controller_makes_files_and_directories_durable() {
    let (fs, controller) = setup();
    open(&fs, &controller, node(7), true, &file(b""));
    for data_only in [false, true] {
        let synced = start(|done| fs.fsync(node(7), data_only, done));
        let (id, call) = controller.next_call();
        assert_eq!(call, Call::Sync { node: node(7), data_only });
        controller.answer(id, Answer::Done);
        synced.recv().unwrap().unwrap();
    }
    let lost = start(|done| fs.fsync(node(7), true, done));
    controller.refuse(controller.next_call().0, Refusal::NotFound);
    assert_eq!(lost.recv().unwrap().unwrap_err().code(), libc::EIO);
    let synced = start(|done| fs.fsyncdir(ROOT, false, done));
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::Sync { node: ROOT, data_only: false });
    controller.answer(id, Answer::Done);
    synced.recv().unwrap().unwrap();
}

#[test]
fn ranges_are_copied_within_the_storage() {
    let (fs, controller) = setup();
    open(&fs, &controller, node(7), false, &file(b"0123456789"));
    open(&fs, &controller, node(8), true, &file(b""));
    let (from, to) = (Place { node: node(7), offset: 2 }, Place { node: node(8), offset: 0 });
    let copied = start(|done| fs.copy(from, to, 100, done));
    assert_eq!(copied.recv().unwrap().unwrap(), 8);
    assert_eq!(read(&fs, node(8), 0).recv().unwrap().unwrap(), b"23456789");
    let hole = start(|done| fs.seek(Place { node: node(8), offset: 0 }, Seek::Hole, done));
    assert_eq!(hole.recv().unwrap().unwrap(), 8);
    let data = start(|done| fs.seek(Place { node: node(8), offset: 8 }, Seek::Data, done));
    assert_eq!(data.recv().unwrap().unwrap_err().code(), libc::ENXIO);
}

#[test]
fn an_unfitting_answer_is_an_error_and_not_a_panic() {
    let (fs, controller) = setup();
    let result = getattr(&fs, node(7));
    let (id, _) = controller.next_call();
    controller.answer(id, Answer::Done);
    assert_eq!(result.recv().unwrap().unwrap_err().code(), libc::EIO);
    let opened = start(|done| fs.open(node(7), false, done));
    let (id, _) = controller.next_call();
    controller.answer(id, Answer::Leased { attr: file_attr(0), lease: READER });
    assert_eq!(opened.recv().unwrap().unwrap_err().code(), libc::EIO, "no descriptor came along");
}

//! Backing files that do not have all of their bytes: asked for before they are used, and leased anew when another file
//! has taken their place.

use address_map::wire::{Lease, Near};

use super::*;
use crate::fs::storage::REPLACED_MAX;
use crate::testing::file;

/// Size of the file and of its chunks, bytes.
const END: u64 = 100;
const CHUNK: u64 = 10;

/// A lease of a backing file that lacks everything.
fn lease(tag: u64) -> Lease {
    let near = Some(Near { tag, chunk: CHUNK, end: END });
    Lease { write: true, backing: None, floating: true, remote: false, alone: true, near }
}

fn attr() -> Attr {
    Attr { volatile: true, ..file_attr(END) }
}

/// Opens a file for writing, as a backing file of this tag.
fn open(fs: &Arc<Fs>, controller: &FakeController, tag: u64, bytes: &std::os::fd::OwnedFd) {
    let opened = start(|done| fs.open(node(7), true, done));
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::Lease { node: node(7), write: true, fill: false });
    controller.lease(id, attr(), lease(tag), bytes);
    opened.recv().unwrap().unwrap();
}

/// The next request asks for the bytes that are about to be written, of the file of this tag.
fn asked_to_fill(controller: &FakeController, tag: u64) -> u64 {
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::Fill { node: node(7), tag, start: 42, end: 45, write: true });
    id
}

fn write(fs: &Arc<Fs>) -> Receiver<Result<u32, Errno>> {
    start(|done| fs.write(node(7), WriteTo::Offset(42), b"abc".to_vec(), None, done))
}

fn bytes_at_42(of: &std::os::fd::OwnedFd) -> [u8; 3] {
    let mut bytes = [0; 3];
    rustix::io::pread(of, &mut bytes, 42).unwrap();
    bytes
}

#[test]
fn a_file_that_was_replaced_is_leased_anew_and_the_change_made_there() {
    let (fs, controller) = setup();
    let (first, second) = (file(&[0; END as usize]), file(&[0; END as usize]));
    open(&fs, &controller, 1, &first);
    let written = write(&fs);
    controller.refuse(asked_to_fill(&controller, 1), Refusal::Stale);
    let (id, call) = controller.next_call();
    assert_eq!(call, Call::Lease { node: node(7), write: true, fill: true });
    controller.lease(id, attr(), lease(2), &second);
    controller.answer(asked_to_fill(&controller, 2), Answer::Done);
    assert_eq!(written.recv().unwrap().unwrap(), 3);
    assert_eq!((bytes_at_42(&first), bytes_at_42(&second)), ([0; 3], *b"abc"));
    // It stays leased, and what was asked for is known.
    assert_eq!(write(&fs).recv().unwrap().unwrap(), 3);
    assert!(controller.is_quiet());
}

#[test]
fn a_file_that_is_replaced_again_and_again_is_given_up() {
    let (fs, controller) = setup();
    let bytes = file(&[0; END as usize]);
    open(&fs, &controller, 0, &bytes);
    let written = write(&fs);
    for tag in 0..u64::from(REPLACED_MAX) {
        controller.refuse(asked_to_fill(&controller, tag), Refusal::Stale);
        let (id, call) = controller.next_call();
        assert_eq!(call, Call::Lease { node: node(7), write: true, fill: true });
        controller.lease(id, attr(), lease(tag + 1), &bytes);
    }
    controller.refuse(asked_to_fill(&controller, REPLACED_MAX.into()), Refusal::Stale);
    assert_eq!(written.recv().unwrap().unwrap_err().code(), libc::ESTALE);
    assert!(controller.is_quiet(), "nobody is asked any more");
    assert_eq!(bytes_at_42(&bytes), [0; 3]);
}

//! Frames come from a process that nobody trusts: whatever its bytes are, decoding them answers a message or an
//! error, within bounds of memory, and messages survive the way there.
//!
//! Each property is tried for `VMDS_FUZZ_SECONDS` seconds (default 2). What fails is kept in `frames.regressions` and
//! tried first ever after.

#![allow(clippy::unwrap_used)]

mod allocations;
mod messages;

use std::env;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use address_map::attr::{Attr, FileKind, Timestamp};
use address_map::ids::NodeId;
use address_map::limits::{FRAME_MAX, LIST_PAGE_BYTES, NAME_MAX, XATTR_VALUE_MAX};
use address_map::name::Name;
use address_map::wire::{Answer, FrameError, ListEntry, NodeAttr, ToController, ToVmds, decode, encode};
use allocations::asked_for;
use bincode::{Decode, Encode};
use messages::{to_controller, to_vmds};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

/// Most bytes that decoding one frame may ask for in all: a few times the largest frame.
const ASKED_MAX: usize = 512 * 1024;

/// Tries a property on ever new values until the time is over; a failure is shrunk and told.
fn fuzz<S: Strategy>(strategy: S, property: impl Fn(S::Value)) {
    let seconds = env::var("VMDS_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let end = Instant::now() + Duration::from_secs(seconds);
    let kept = FileFailurePersistence::WithSource("regressions");
    let mut runner = TestRunner::new(Config {
        cases: 256,
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(kept)),
        ..Config::default()
    });
    while Instant::now() < end {
        let result = runner.run(&strategy, |value| {
            property(value);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    }
}

fn encoded<T: Encode>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).unwrap();
    bytes
}

/// Decodes within bounds. What decodes is a message like any other: it can be sent on, unchanged.
fn digest<T: Encode + Decode<()> + PartialEq + Debug>(bytes: &[u8]) {
    let (decoded, asked) = asked_for(|| decode::<T>(bytes));
    assert!(asked <= ASKED_MAX, "{} bytes made the decoder ask for {asked}", bytes.len());
    if let Ok(message) = decoded {
        assert_eq!(decode::<T>(&encoded(&message)).unwrap(), message);
    }
}

fn digest_both(bytes: &[u8]) {
    digest::<ToController>(bytes);
    digest::<ToVmds>(bytes);
}

/// A valid frame of either side, as bytes.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        to_controller().prop_map(|message| encoded(&message)),
        to_vmds().prop_map(|message| encoded(&message))
    ]
}

/// What a fault or a malicious peer does to a frame.
#[derive(Clone, Debug)]
enum Mutation {
    Set(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Bytes that begin the wide forms of variable-length integers are the interesting ones.
    let byte = prop_oneof![any::<u8>(), prop::sample::select(vec![0, 1, 250, 251, 252, 253, 254, 255])];
    let at = || any::<usize>();
    prop_oneof![
        6 => (at(), byte.clone()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => at().prop_map(Mutation::Cut),
        2 => (at(), vec(byte, 1..12)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (at(), at()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: Vec<Mutation>) -> Vec<u8> {
    for mutation in mutations {
        let place = |at: usize| at % (bytes.len() + 1);
        match mutation {
            Mutation::Set(at, byte) => {
                let at = place(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            Mutation::Cut(at) => bytes.truncate(place(at)),
            Mutation::Insert(at, new) => {
                let at = place(at);
                bytes.splice(at..at, new);
            }
            Mutation::Repeat(from, to) => {
                let (from, to) = (place(from), place(to));
                bytes.extend_from_within(from.min(to)..from.max(to));
            }
        }
    }
    bytes
}

#[test]
fn messages_to_the_controller_survive_the_way() {
    fuzz(to_controller(), |message| assert_eq!(decode::<ToController>(&encoded(&message)).unwrap(), message));
}

#[test]
fn messages_to_the_vmds_survive_the_way() {
    fuzz(to_vmds(), |message| assert_eq!(decode::<ToVmds>(&encoded(&message)).unwrap(), message));
}

#[test]
fn any_bytes_are_digested() {
    let short = vec(any::<u8>(), 0..64);
    let tagged = (0..16u8, vec(prop::sample::select(vec![0, 1, 2, 250, 251, 252, 253, 254, 255]), 0..200))
        .prop_map(|(tag, rest)| [&[tag], &rest[..]].concat());
    let long = (vec(any::<u8>(), 0..16), any::<u8>(), 0..FRAME_MAX)
        .prop_map(|(head, byte, length)| [head, vec![byte; length]].concat());
    fuzz(prop_oneof![6 => short.boxed(), 4 => tagged.boxed(), 1 => long.boxed()], |bytes| {
        digest_both(&bytes)
    });
}

#[test]
fn mutated_frames_are_digested() {
    fuzz((frame(), vec(mutation(), 1..6)).prop_map(|(bytes, mutations)| mutate(bytes, mutations)), |bytes| {
        digest_both(&bytes);
    });
}

#[test]
fn bytes_after_a_message_and_messages_cut_short_are_refused() {
    fuzz((to_controller(), vec(any::<u8>(), 1..9), any::<usize>()), |(message, more, cut)| {
        let bytes = encoded(&message);
        let longer = decode::<ToController>(&[&bytes[..], &more].concat());
        assert!(
            matches!(longer, Err(FrameError::Trailing(trailing)) if trailing == more.len()),
            "{longer:?}"
        );
        let shorter = decode::<ToController>(&bytes[..cut % bytes.len()]);
        assert!(matches!(shorter, Err(FrameError::Malformed(_))), "{shorter:?}");
    });
}

#[test]
fn frames_beyond_the_bound_are_neither_made_nor_read() {
    let bytes_of = |length| ToVmds::Reply { id: 1, result: Ok(Answer::Bytes(vec![7; length])) };
    let mut buffer = Vec::new();
    assert!(matches!(encode(&bytes_of(FRAME_MAX), &mut buffer), Err(FrameError::TooLong(_))));
    assert!(encode(&bytes_of(XATTR_VALUE_MAX), &mut buffer).is_ok(), "the largest attribute fits");
    let long = vec![0; FRAME_MAX + 1];
    let (refused, asked) = asked_for(|| decode::<ToVmds>(&long));
    assert!(matches!(refused, Err(FrameError::TooLong(length)) if length == long.len()));
    assert_eq!(asked, 0);
}

#[test]
fn lengths_that_lie_ask_for_little() {
    // `Reply` with a page, bytes, and items, each claiming as many elements as a length can say.
    for head in [&[2, 1, 0, 7][..], &[2, 1, 0, 4], &[3, 1], &[1], &[0, 1, 1]] {
        for length in [
            &[251, 0xff, 0xff][..],
            &[252, 0xff, 0xff, 0, 0],
            &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            let (refused, asked) = asked_for(|| decode::<ToVmds>(&[head, length].concat()));
            assert!(refused.is_err());
            assert!(asked <= ASKED_MAX, "{head:?}, then {length:?}: {asked} bytes");
        }
    }
}

/// What a sender counts for an entry of a page beside its name, at least, bytes.
const ENTRY_COUNTED: usize = 96;

#[test]
fn the_fullest_pages_of_a_directory_fit() {
    // The decoder bounds what a page takes in memory, so many small entries are as hard as few large ones.
    let page = |name: &[u8], attr: Attr| {
        let node = NodeAttr { node: NodeId(u64::from(attr.uid) << 20 | 2), attr };
        let entry = ListEntry { cookie: u64::from(attr.uid) << 31 | 3, name: Name::new(name).unwrap(), node };
        let entries = vec![entry; LIST_PAGE_BYTES / (ENTRY_COUNTED + name.len()) + 1];
        ToVmds::Reply { id: 1, result: Ok(Answer::Page { entries, end: false }) }
    };
    let attr = |number: u64, time: Timestamp| Attr {
        kind: FileKind::File,
        mode: number as u32 & 0o7777,
        uid: number as u32,
        gid: number as u32,
        nlink: number as u32,
        size: number,
        blocks: number,
        rdev: number as u32,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        has_xattrs: false,
        volatile: false,
    };
    let long = [b'x'; NAME_MAX];
    for name in [&b"a"[..], &long] {
        for attr in [attr(0, Timestamp::default()), attr(u64::MAX, Timestamp::new(i64::MIN, 999_999_999))] {
            let page = page(name, attr);
            assert_eq!(decode::<ToVmds>(&encoded(&page)).unwrap(), page);
        }
    }
}

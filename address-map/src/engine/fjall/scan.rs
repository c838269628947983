//! Reads the bytes of a journal without fjall: where its whole commits end, and what is wrong behind them.
//!
//! What this relies on, all of it in fjall 3.1.13 (`journal/entry.rs`, `journal/writer.rs`); numbers are little-endian:
//!
//! | entry | bytes |
//! |---|---|
//! | start of a commit | `1`, items (4), number of the commit (8) |
//! | item | `2`, kind of value (1), compression (1), keyspace (8), length of key (2), of value (4), of value here (4), key, value |
//! | end of a commit | `3`, xxh3 of the items' bytes (8), `FJL\x03` |
//! | clearing of a keyspace, counted as an item | `4`, keyspace (8) |
//!
//! Entries go through a buffer that never splits one, and a commit ends with a write to the kernel. So a page that is
//! written back while it is filled ends, on the disk, where an entry ends; the rest of it is zeros.
//!
//! fjall itself takes an entry that it cannot read for the end of the journal, wherever it is, and a wrong checksum for
//! damage, whatever is missing. Which of the two it is follows from the pages: `docs/decisions/0001` has the argument.

use xxhash_rust::xxh3::xxh3_64;

/// What a disk writes whole or not at all, bytes.
pub(super) const PAGE: usize = 4096;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const START_BYTES: usize = 13;
const ITEM_BYTES: usize = 21;
const END_BYTES: usize = 13;
const CLEAR_BYTES: usize = 9;
const MAGIC: &[u8] = b"FJL\x03";
/// Kinds of values: value, two kinds of tombstones, and a reference to a value elsewhere.
const KINDS: [u8; 4] = [0, 1, 2, 4];
/// We do not compress journals.
const UNCOMPRESSED: u8 = 0;

/// What a journal holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Bytes from the beginning in which all commits are whole.
    pub(super) whole: usize,
    /// What follows them.
    pub(super) rest: Rest,
}

/// What follows the last whole commit of a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// A commit that was not written to its end.
    Unfinished,
    /// A commit of which the page around this byte was never written, though what follows it was.
    Unwritten(usize),
    /// A commit that was written, and is no longer what it was.
    Damaged,
}

/// Why a commit is not whole.
enum Broken {
    /// The entry at this place cannot be right; `end` is where it ends, as far as it says so itself.
    Entry { at: usize, end: usize },
    /// All of its entries up to `end` can be read, but are not those that were written.
    Checksum { end: usize },
}

/// Examines a journal; `written` is what it holds up to its last byte that is not zero.
pub(super) fn scan(written: &[u8]) -> Scan {
    let (mut whole, mut last) = (0, None);
    while whole < written.len() {
        match commit(written, whole, last) {
            Ok((end, number)) => (whole, last) = (end, Some(number)),
            Err(broken) => return Scan { whole, rest: judge(written, whole, &broken) },
        }
    }
    Scan { whole, rest: Rest::Nothing }
}

/// Reads the commit at `from`, which follows the one numbered `last`; answers where it ends, and its number.
fn commit(written: &[u8], from: usize, last: Option<u64>) -> Result<(usize, u64), Broken> {
    let start = entry(written, from)?;
    let wrong = |at, end| Err(Broken::Entry { at, end });
    let Kind::Start { items, number } = start.kind else { return wrong(from, start.end) };
    if last.is_some_and(|last| number <= last) {
        return wrong(from, start.end);
    }
    let (mut at, mut left) = (start.end, items);
    loop {
        let next = entry(written, at)?;
        match next.kind {
            Kind::Item if left > 0 => left -= 1,
            Kind::End { checksum } if left == 0 => {
                let intact = xxh3_64(&written[start.end..at]) == checksum;
                return if intact { Ok((next.end, number)) } else { Err(Broken::Checksum { end: next.end }) };
            }
            _ => return wrong(at, next.end),
        }
        at = next.end;
    }
}

struct Entry {
    kind: Kind,
    end: usize,
}

enum Kind {
    Start { items: u32, number: u64 },
    Item,
    End { checksum: u64 },
}

fn entry(written: &[u8], at: usize) -> Result<Entry, Broken> {
    let fixed = match written.get(at) {
        Some(&START) => START_BYTES,
        Some(&ITEM) => ITEM_BYTES,
        Some(&END) => END_BYTES,
        Some(&CLEAR) => CLEAR_BYTES,
        _ => 1,
    };
    let end = at + fixed;
    let broken = |end| Broken::Entry { at, end };
    let head = written.get(at..end).ok_or(broken(end))?;
    let (kind, end) = match head[0] {
        START => (Kind::Start { items: u32_at(head, 1), number: u64_at(head, 5) }, end),
        END if head[9..] == *MAGIC => (Kind::End { checksum: u64_at(head, 1) }, end),
        ITEM if KINDS.contains(&head[1]) && head[2] == UNCOMPRESSED => {
            let (key, value, stored) = (u16_at(head, 11), u32_at(head, 13), u32_at(head, 17));
            if value != stored {
                return Err(broken(end));
            }
            (Kind::Item, end + usize::from(key) + value as usize)
        }
        CLEAR => (Kind::Item, end),
        _ => return Err(broken(end)),
    };
    if end > written.len() { Err(broken(end)) } else { Ok(Entry { kind, end }) }
}

fn judge(written: &[u8], whole: usize, broken: &Broken) -> Rest {
    let (unwritten, end) = match *broken {
        Broken::Checksum { end } => (unwritten_page(written, whole, end), end),
        Broken::Entry { at, end } => {
            // Reading goes astray in a page that is not there, or in an entry that is cut by one.
            let page_end = (at / PAGE + 1) * PAGE;
            let rest_of_page = is_zero(written, at, page_end).then_some(at);
            (rest_of_page.or_else(|| unwritten_page(written, whole, page_end + PAGE)), end)
        }
    };
    // A length that is wrong may point behind all that was written. But a commit that has its end was finished, unless
    // what looks like an end is a part of a value, which a page boundary may cut anywhere.
    let finished = ends_with_end(written) && !written.len().is_multiple_of(PAGE);
    match unwritten {
        Some(at) => Rest::Unwritten(at),
        None if end > written.len() && !finished => Rest::Unfinished,
        None => Rest::Damaged,
    }
}

/// A page of nothing but zeros that lies in this part, with something behind it that was written.
fn unwritten_page(written: &[u8], from: usize, to: usize) -> Option<usize> {
    let mut pages = (from.next_multiple_of(PAGE)..).step_by(PAGE).take_while(|page| page + PAGE <= to);
    pages.find(|page| is_zero(written, *page, page + PAGE))
}

/// Whether there is such a part, and all of it is zeros.
fn is_zero(written: &[u8], from: usize, to: usize) -> bool {
    written.get(from..to).is_some_and(|part| part.iter().all(|byte| *byte == 0))
}

fn ends_with_end(written: &[u8]) -> bool {
    written.ends_with(MAGIC) && written.len().checked_sub(END_BYTES).is_some_and(|at| written[at] == END)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

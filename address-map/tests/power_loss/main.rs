//! What a power loss may leave of a store is opened again: the tree is one that there was, all its records fit together,
//! and everything that was synced is there. What damage leaves is refused.
//!
//! The model: what was synced is on the disk. Of what was written to the journal after that, any part may be: only its
//! beginning, cut anywhere, with or without the length of the file; or some of its pages and not others, each as it was
//! at some time.

#![allow(clippy::unwrap_used)]

mod lost;

use std::fs::{self, File};
use std::ops::Range;

use lost::{Commits, Lost, PAGE};

/// Whether there is time for all of it.
fn full() -> bool {
    std::env::var_os("VMDS_TEST_FULL").is_some()
}

fn assert_none(failures: &[String]) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// What is wrong with what is found when the journal holds this; it has all that is whole in it, and nothing else.
fn wrong(lost: &Lost, left: &[u8], length: u64) -> Option<String> {
    match (lost.reopen(left, length), lost.last_whole(left)) {
        (Ok(found), whole) if found == whole => None,
        (Ok(found), whole) => Some(format!("change {found}, not {whole}")),
        (Err(error), _) => Some(error),
    }
}

/// Places to cut: each end of a commit, beside it, and between.
fn cuts(lost: &Lost) -> Vec<u64> {
    let ends = lost.ends();
    if full() {
        return (lost.synced_end()..=ends[ends.len() - 1]).step_by(7).collect();
    }
    let mut cuts = vec![lost.synced_end()];
    for pair in ends.windows(2) {
        let (before, end) = (pair[0], pair[1]);
        cuts.extend([before + 1, (before + end) / 2, end - 1, end]);
    }
    cuts.dedup();
    cuts
}

#[test]
fn a_journal_cut_anywhere_behind_the_last_sync_loses_only_what_was_behind_the_cut() {
    let lost = Lost::new(Commits::Large);
    let mut failures = Vec::new();
    for cut in cuts(&lost) {
        for length in [cut, lost.length] {
            let wrong = wrong(&lost, &lost.bytes[..cut as usize], length);
            failures.extend(wrong.map(|wrong| format!("cut at {cut} of {length}: {wrong}")));
        }
    }
    assert_none(&failures);
}

/// The parts of pages that were written after the last sync.
fn pages(lost: &Lost) -> Vec<Range<usize>> {
    let (synced, end) = (lost.synced_end(), lost.bytes.len() as u64);
    let page = |page: u64| (page * PAGE).max(synced) as usize..((page + 1) * PAGE).min(end) as usize;
    (synced / PAGE..end.div_ceil(PAGE)).map(page).collect()
}

#[test]
fn a_page_that_was_not_written_loses_only_what_was_behind_it() {
    let mut failures = Vec::new();
    for commits in [Commits::Small, Commits::Large] {
        let lost = Lost::new(commits);
        for page in pages(&lost) {
            let mut left = lost.bytes.clone();
            left[page.clone()].fill(0);
            failures.extend(wrong(&lost, &left, lost.length).map(|wrong| format!("page {page:?}: {wrong}")));
        }
    }
    assert_none(&failures);
}

#[test]
fn pages_that_were_written_at_any_time_or_not_lose_only_what_was_behind_the_first_that_is_not_whole() {
    let seed =
        std::env::var("VMDS_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("VMDS_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut failures = Vec::new();
    for commits in [Commits::Small, Commits::Large] {
        let lost = Lost::new(commits);
        let ends = lost.ends();
        for round in 0..if full() { 500 } else { 60 } {
            let mut left = lost.bytes.clone();
            // From few pages that are not there to many.
            let missing = random.f64().powi(3);
            for page in pages(&lost) {
                if random.f64() < missing {
                    // As the page was after one of the changes: without what came later.
                    let written = random.choice(&ends).map_or(0, |end| *end as usize);
                    left[page.start.max(written.min(page.end))..page.end].fill(0);
                }
            }
            // The length of the file may have come to the disk or not.
            let end = left.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
            let length = if random.bool() { lost.length } else { end };
            left.truncate(end as usize);
            failures.extend(wrong(&lost, &left, length).map(|wrong| format!("round {round}: {wrong}")));
        }
    }
    assert_none(&failures);
}

#[test]
fn what_is_dropped_because_a_page_is_missing_is_kept_beside() {
    let lost = Lost::new(Commits::Large);
    let hole = pages(&lost).into_iter().find(|page| {
        let mut left = lost.bytes.clone();
        left[page.clone()].fill(0);
        lost.last_whole(&left) > 2
    });
    let mut left = lost.bytes.clone();
    left[hole.unwrap()].fill(0);
    let whole = lost.ends()[lost.last_whole(&left)] as usize;
    lost.reopen(&left, lost.length).unwrap();
    assert!(fs::read(lost.left().join("CUT")).unwrap() == left[whole..], "what was cut off is another");
}

/// Places in what was synced: many in a full run, and enough to meet each field of an entry otherwise.
fn synced_places(lost: &Lost) -> impl Iterator<Item = usize> {
    let places = if full() { 10_007 } else { 251 };
    (0..lost.synced_end() as usize).step_by((lost.synced_end() as usize / places).max(1))
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_refused_and_drops_nothing() {
    let mut failures = Vec::new();
    for commits in [Commits::Small, Commits::Large] {
        let lost = Lost::new(commits);
        let last = lost.ends().len() - 1;
        for at in synced_places(&lost) {
            let mut left = lost.bytes.clone();
            left[at] ^= 1 << (at % 8);
            match lost.reopen(&left, lost.length) {
                // fjall's checksum does not cover the number of a commit; as long as they grow, another does no harm.
                Ok(found) if found == last => {}
                Ok(found) => {
                    failures.push(format!("bit in byte {at}: opened with change {found}, not {last}"))
                }
                Err(error) if !error.contains("Damaged") => {
                    failures.push(format!("bit in byte {at}: {error}"))
                }
                Err(_) if fs::metadata(lost.journal_left()).unwrap().len() == lost.length => {}
                Err(_) => failures.push(format!("bit in byte {at}: the journal was cut")),
            }
        }
    }
    assert_none(&failures);
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_refused_also_when_pages_behind_it_are_missing() {
    let lost = Lost::new(Commits::Large);
    let mut left = lost.bytes.clone();
    left[pages(&lost)[2].clone()].fill(0);
    left[lost.synced_end() as usize / 2] ^= 4;
    let error = lost.reopen(&left, lost.length).unwrap_err();
    assert!(error.contains("Damaged"), "{error}");
}

#[test]
fn a_journal_that_is_followed_by_another_was_synced_and_is_refused_with_a_page_missing() {
    let lost = Lost::new(Commits::Large);
    let mut left = lost.bytes.clone();
    left[pages(&lost)[2].clone()].fill(0);
    lost.leave(&left, lost.length);
    let next = lost.journal_left().with_file_name("9.jnl");
    File::create_new(next).unwrap().set_len(lost.length).unwrap();
    let error = lost.open_left().unwrap_err();
    assert!(format!("{error:?}").contains("Damaged"), "{error:?}");
}

//! Reading tried against bytes that are known.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1024 * 1024;

/// What every object here begins with, and most are no longer.
static BYTES: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..10 * MIB).map(|offset| (offset * 31 + (offset >> 13)) as u8).collect());

fn bytes(range: &Range<u64>) -> Vec<u8> {
    BYTES[range.start as usize..range.end as usize].to_vec()
}

type Answers = Receiver<Result<Vec<u8>, Errno>>;

fn want(reading: &mut Reading, range: Range<u64>, ahead: bool) -> (Vec<Range<u64>>, Answers) {
    let (answer, answers) = channel();
    let taker = move |bytes: Result<&[u8], Errno>| answer.send(bytes.map(<[u8]>::to_vec)).unwrap();
    let (loads, (deliveries, _)) = reading.want(range, Box::new(taker), ahead);
    deliveries.into_iter().for_each(Delivery::make);
    (loads, answers)
}

fn load(reading: &mut Reading, range: &Range<u64>) -> usize {
    let (deliveries, dropped) = reading.loaded(range.start, Ok(bytes(range)));
    deliveries.into_iter().for_each(Delivery::make);
    dropped
}

#[test]
fn what_was_delivered_is_dropped() {
    let mut reading = Reading::of(100);
    let (loads, answers) = want(&mut reading, 0..100, true);
    assert_eq!((&loads[0], loads.len(), reading.buffered()), (&(0..100), 1, 100));
    assert!(answers.try_recv().is_err());
    assert_eq!(load(&mut reading, &(0..100)), 100);
    assert_eq!(answers.recv().unwrap().unwrap(), bytes(&(0..100)));
    assert_eq!(reading.buffered(), 0);
}

#[test]
fn requests_that_follow_each_other_are_read_ahead_and_others_are_not() {
    let mut reading = Reading::of(1024 * MIB);
    let mut loaded = 0;
    for at in 0..32 {
        let (loads, _) = want(&mut reading, at * MIB..(at + 1) * MIB, true);
        loaded += loads.iter().map(|load| load.end - load.start).sum::<u64>();
        assert!(loaded > at * MIB && loaded <= (at + 1) * MIB + WINDOW_MAX, "{loaded} after {at}");
    }
    assert!(loaded >= 31 * MIB + WINDOW_MAX, "the window is wide: {loaded}");
    let (loads, _) = want(&mut reading, 500 * MIB..500 * MIB + 4096, true);
    assert_eq!((&loads[0], loads.len()), (&(500 * MIB..500 * MIB + sums::PIECE), 1), "one request elsewhere");
}

#[test]
fn without_leave_nothing_is_read_ahead() {
    let mut reading = Reading::of(1024 * MIB);
    for at in 0..8 {
        let range = at * MIB..(at + 1) * MIB;
        let (loads, _) = want(&mut reading, range.clone(), false);
        assert_eq!((&loads[0], loads.len()), (&range, 1));
    }
}

#[test]
fn a_piece_that_cannot_be_loaded_fails_those_who_want_it_and_no_others() {
    let mut reading = Reading::of(10 * MIB);
    let (loads, first) = want(&mut reading, 0..4096, true);
    let (more, second) = want(&mut reading, 5 * MIB..5 * MIB + 10, true);
    let (failed, others): (Vec<_>, Vec<_>) = loads.into_iter().chain(more).partition(|load| load.start == 0);
    assert_eq!(failed.len(), 1);
    let (deliveries, dropped) = reading.loaded(0, Err(Errno::IO));
    deliveries.into_iter().for_each(Delivery::make);
    assert_eq!(dropped as u64, failed[0].end);
    assert_eq!(first.recv().unwrap(), Err(Errno::IO));
    assert!(second.try_recv().is_err());
    for load in others {
        self::load(&mut reading, &load);
    }
    assert_eq!(second.recv().unwrap().unwrap(), bytes(&(5 * MIB..5 * MIB + 10)));
    let (again, _) = want(&mut reading, 0..4096, true);
    assert_eq!(again.first().map(|load| load.start), Some(0), "it is asked for again");
}

proptest! {
    /// Whatever is wanted and in whatever order it comes: everybody gets their bytes, nothing is on its way twice.
    #[test]
    fn everybody_gets_what_they_want(
        size in 1_u64..9 * MIB,
        steps in vec((any::<prop::sample::Index>(), 1_u64..2 * MIB, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let mut reading = Reading::of(size);
        let mut on_their_way: Vec<Range<u64>> = Vec::new();
        let mut wanted: Vec<(Range<u64>, Answers)> = Vec::new();
        let mut next = 0;
        for (index, length, follows, ahead) in steps {
            let start = if follows { next % size } else { index.index(size as usize) as u64 };
            let range = start..size.min(start + length);
            next = range.end;
            let (loads, answers) = want(&mut reading, range.clone(), ahead);
            for load in loads {
                prop_assert!(load.start < load.end && load.end <= size);
                let whole = |offset: u64| offset.is_multiple_of(sums::PIECE) || offset == size;
                prop_assert!(whole(load.start) && whole(load.end), "{load:?} cannot be proven");
                let twice = on_their_way.iter().any(|other| other.start < load.end && load.start < other.end);
                prop_assert!(!twice, "{load:?} is on its way");
                on_their_way.push(load);
            }
            wanted.push((range, answers));
            if !on_their_way.is_empty() && index.index(3) > 0 {
                let come = on_their_way.swap_remove(index.index(on_their_way.len()));
                load(&mut reading, &come);
            }
        }
        for come in on_their_way {
            load(&mut reading, &come);
        }
        for (range, answers) in wanted {
            prop_assert_eq!(answers.try_recv().unwrap().unwrap(), bytes(&range));
        }
        prop_assert!(reading.requests.is_empty());
    }
}

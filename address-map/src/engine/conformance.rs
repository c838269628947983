//! What every engine must do, as one suite. Test support: compiled for tests and with the feature `conformance` only.
//!
//! [`run`] checks each promise of [`Engine`] by name on a fresh engine; [`check_history`] compares a given history of
//! operations with a `BTreeMap`, so that a generator of random histories can drive it. All of them panic on failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Batch, Engine, Reader, Value};
use crate::key::Key;

/// A place where one engine lives.
pub trait TestBed {
    /// The engine; the same one each time.
    fn engine(&self) -> Arc<dyn Engine>;

    /// Whether what was committed is still there when the engine is opened again.
    fn survives(&self) -> bool;

    /// Closes the engine and opens it again where it was. Only called if it survives that, and when nobody else
    /// refers to the engine.
    fn reopen(self: Box<Self>) -> Box<dyn TestBed>;
}

/// Makes an empty engine.
pub type MakeBed<'a> = &'a dyn Fn() -> Box<dyn TestBed>;

/// One step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    /// Commits these changes as one batch.
    Commit(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// Reads one key.
    Get(Vec<u8>),
    /// Scans from a key up to another or the end, at most so many records.
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
    /// Takes a snapshot, commits these changes, and looks at everything in the snapshot.
    Snapshot(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// Makes everything so far durable.
    Sync,
    /// Closes the engine and opens it again, if it survives that.
    Reopen,
}

/// Checks every promise, each on an engine of its own.
pub fn run(make: MakeBed<'_>) {
    gets_answer_the_last_value(make);
    scans_are_ordered_and_bounded(make);
    scans_stop_when_told_and_hand_on_errors(make);
    the_last_change_of_a_key_wins(make);
    values_may_be_empty_and_large(make);
    snapshots_do_not_move(make);
    numbers_grow(make);
    commits_are_atomic_to_concurrent_readers(make);
    a_scan_does_not_block_commits(make);
    reopening_keeps_everything(make);
}

fn key(bytes: &[u8]) -> Key {
    Key::from_slice(bytes)
}

fn batch(changes: &[(&[u8], Option<&[u8]>)]) -> Batch {
    let mut batch = Batch::default();
    for (name, value) in changes {
        match value {
            Some(value) => batch.put(key(name), *value),
            None => batch.delete(key(name)),
        }
    }
    batch
}

fn get(reader: &dyn Reader, name: &[u8]) -> Option<Value> {
    reader.get(name).expect("get")
}

fn scan(reader: &dyn Reader, start: &[u8], end: Option<&[u8]>, most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut visit = |name: &[u8], value: &[u8]| {
        found.push((name.to_vec(), value.to_vec()));
        Ok(found.len() < most)
    };
    reader.scan(start, end, &mut visit).expect("scan");
    found
}

fn all_keys(reader: &dyn Reader, start: &[u8], end: Option<&[u8]>) -> Vec<Vec<u8>> {
    scan(reader, start, end, usize::MAX).into_iter().map(|(name, _)| name).collect()
}

fn gets_answer_the_last_value(make: MakeBed<'_>) {
    let bed = make();
    let engine = bed.engine();
    assert_eq!(get(&*engine, b"a"), None, "an engine begins empty");
    engine.commit(&batch(&[(b"a", Some(b"1")), (b"ab", Some(b"2"))])).expect("commit");
    assert_eq!(get(&*engine, b"a").as_deref(), Some(&b"1"[..]), "a commit is visible when it returns");
    assert_eq!(get(&*engine, b"ab").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(&*engine, b"b"), None);
    engine.commit(&batch(&[(b"a", Some(b"3")), (b"ab", None), (b"missing", None)])).expect("commit");
    assert_eq!(get(&*engine, b"a").as_deref(), Some(&b"3"[..]));
    assert_eq!(get(&*engine, b"ab"), None, "a removed key is gone");
    assert_eq!(all_keys(&*engine, b"", None), [b"a"], "removing a key that is not there does nothing");
    engine.commit(&Batch::default()).expect("an empty commit");
    assert_eq!(all_keys(&*engine, b"", None), [b"a"]);
}

fn scans_are_ordered_and_bounded(make: MakeBed<'_>) {
    let bed = make();
    let engine = bed.engine();
    let names: [&[u8]; 6] = [b"\x00", b"a", b"a\x00", b"ab", b"b", b"\xff\xff"];
    for name in names.iter().rev() {
        engine.commit(&batch(&[(name, Some(name))])).expect("commit");
    }
    assert_eq!(all_keys(&*engine, b"", None), names, "bytes decide the order, shorter keys come first");
    assert_eq!(
        all_keys(&*engine, b"a", Some(b"b")),
        names[1..4],
        "the start is part of a scan, the end is not"
    );
    assert_eq!(all_keys(&*engine, b"aa", Some(b"c")), names[3..5], "bounds need not be keys");
    assert_eq!(all_keys(&*engine, b"b\x00", None), names[5..]);
    assert!(all_keys(&*engine, b"a", Some(b"a")).is_empty(), "an empty range has no keys");
    assert!(
        all_keys(&*engine, b"b", Some(b"a")).is_empty(),
        "a range that ends before it starts has no keys"
    );
    assert!(all_keys(&*engine, b"\xff\xff\x00", None).is_empty());
    assert_eq!(
        scan(&*engine, b"ab", None, 1),
        [(b"ab".to_vec(), b"ab".to_vec())],
        "keys come with their values"
    );
}

fn scans_stop_when_told_and_hand_on_errors(make: MakeBed<'_>) {
    let bed = make();
    let engine = bed.engine();
    let numbers: Vec<[u8; 4]> = (0..500u32).map(u32::to_be_bytes).collect();
    let changes: Vec<(&[u8], Option<&[u8]>)> = numbers.iter().map(|n| (&n[..], Some(&n[..]))).collect();
    engine.commit(&batch(&changes)).expect("commit");
    assert_eq!(scan(&*engine, b"", None, 7).len(), 7, "a scan ends when the visitor says so");
    let mut visited = 0;
    let refused = crate::error::Refusal::Busy;
    let mut visit = |_: &[u8], _: &[u8]| {
        visited += 1;
        if visited == 3 { Err(refused.into()) } else { Ok(true) }
    };
    let error = engine.scan(b"", None, &mut visit).expect_err("the visitor's error is handed on");
    assert_eq!((error.refusal(), visited), (refused, 3));
}

fn the_last_change_of_a_key_wins(make: MakeBed<'_>) {
    let bed = make();
    let engine = bed.engine();
    engine
        .commit(&batch(&[
            (b"put", None),
            (b"put", Some(b"old")),
            (b"put", Some(b"new")),
            (b"gone", Some(b"x")),
            (b"gone", None),
            (b"back", Some(b"x")),
            (b"back", None),
            (b"back", Some(b"y")),
        ]))
        .expect("commit");
    assert_eq!(
        scan(&*engine, b"", None, usize::MAX),
        [(b"back".to_vec(), b"y".to_vec()), (b"put".to_vec(), b"new".to_vec())]
    );
    assert_eq!(get(&*engine, b"gone"), None);
    assert_eq!(get(&*engine, b"put").as_deref(), Some(&b"new"[..]));
}

fn values_may_be_empty_and_large(make: MakeBed<'_>) {
    const LARGE: usize = 128 * 1024;
    let mut bed = make();
    let large: Vec<u8> = (0..LARGE).map(|i| (i * 31 % 251) as u8).collect();
    let long_key = vec![b'k'; 300];
    let changes: [(&[u8], Option<&[u8]>); 3] =
        [(b"empty", Some(b"")), (b"large", Some(&large)), (&long_key, Some(b"v"))];
    bed.engine().commit(&batch(&changes)).expect("commit");
    let check = |engine: Arc<dyn Engine>| {
        assert_eq!(get(&*engine, b"empty").as_deref(), Some(&b""[..]), "an empty value is a value");
        assert!(get(&*engine, b"large").as_deref() == Some(&large[..]), "a large value comes back whole");
        assert_eq!(get(&*engine, &long_key).as_deref(), Some(&b"v"[..]));
        assert_eq!(all_keys(&*engine, b"", None).len(), 3);
    };
    check(bed.engine());
    if bed.survives() {
        bed = bed.reopen();
        check(bed.engine());
    }
}

fn snapshots_do_not_move(make: MakeBed<'_>) {
    let bed = make();
    let engine = bed.engine();
    engine.commit(&batch(&[(b"a", Some(b"1")), (b"b", Some(b"1"))])).expect("commit");
    let first = engine.snapshot().expect("snapshot");
    engine.commit(&batch(&[(b"a", Some(b"2")), (b"b", None), (b"c", Some(b"2"))])).expect("commit");
    let second = engine.snapshot().expect("snapshot");
    engine.commit(&batch(&[(b"a", None), (b"b", Some(b"3"))])).expect("commit");
    assert_eq!(get(&*first, b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&*first, b"c"), None);
    assert_eq!(all_keys(&*first, b"", None), [b"a", b"b"]);
    assert_eq!(get(&*second, b"a").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(&*second, b"b"), None);
    assert_eq!(all_keys(&*second, b"", None), [b"a", b"c"]);
    drop(second);
    assert_eq!(all_keys(&*engine, b"", None), [b"b", b"c"], "the engine itself shows the newest state");
}

fn numbers_grow(make: MakeBed<'_>) {
    const THREADS: usize = 4;
    const COMMITS: u32 = 50;
    let bed = make();
    let engine = bed.engine();
    let commit = |thread: usize, i: u32| {
        engine.commit(&batch(&[(&[thread as u8], Some(&i.to_be_bytes()))])).expect("commit")
    };
    let mut numbers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let numbers: Vec<_> = (0..COMMITS).map(|i| commit(thread, i)).collect();
                    assert!(numbers.is_sorted(), "numbers grow");
                    numbers
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a committing thread")).collect()
    });
    let last = engine.commit(&Batch::default()).expect("commit");
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "no two commits have the same number");
    assert!(numbers.iter().all(|number| *number < last), "an empty commit has a number too");
}

fn commits_are_atomic_to_concurrent_readers(make: MakeBed<'_>) {
    // Enough that engines which write tables in the background do so many times.
    const COMMITS: u64 = 4000;
    const KEYS: u8 = 32;
    const VALUE_BYTES: usize = 256;
    let bed = make();
    let engine = bed.engine();
    let write = |number: u64| {
        let mut value = number.to_be_bytes().to_vec();
        value.resize(VALUE_BYTES, 0);
        let mut batch = Batch::default();
        (0..KEYS).for_each(|i| batch.put(key(&[i]), value.as_slice()));
        engine.commit(&batch).expect("commit");
    };
    let number = |value: &[u8]| u64::from_be_bytes(value[..8].try_into().expect("eight bytes"));
    write(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            (1..=COMMITS).for_each(write);
            done.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            let mut newest = 0;
            while !done.load(Ordering::SeqCst) {
                let seen: Vec<u64> =
                    scan(&*engine, b"", None, usize::MAX).iter().map(|(_, value)| number(value)).collect();
                assert_eq!(seen.len(), usize::from(KEYS));
                assert!(seen.iter().all(|n| *n == seen[0]), "a scan sees whole commits: {seen:?}");
                let snapshot = engine.snapshot().expect("snapshot");
                let seen: Vec<u64> =
                    (0..KEYS).map(|i| number(&get(&*snapshot, &[i]).expect("a key"))).collect();
                assert!(seen.iter().all(|n| *n == seen[0]), "a snapshot sees whole commits: {seen:?}");
                for i in 0..KEYS {
                    let now = number(&get(&*engine, &[i]).expect("a key"));
                    assert!(now >= newest, "a later get sees no older state: {now} after {newest}");
                    newest = now;
                }
            }
        });
    });
    assert_eq!(number(&get(&*engine, &[0]).expect("a key")), COMMITS);
}

fn a_scan_does_not_block_commits(make: MakeBed<'_>) {
    let bed = make();
    let engine = bed.engine();
    engine.commit(&batch(&[(b"a", Some(b"1")), (b"b", Some(b"1"))])).expect("commit");
    let mut seen = Vec::new();
    let mut visit = |name: &[u8], _: &[u8]| {
        engine.commit(&batch(&[(b"b", None), (b"c", Some(b"2"))]))?;
        seen.push(name.to_vec());
        Ok(true)
    };
    engine.scan(b"", None, &mut visit).expect("scan");
    assert_eq!(seen, [b"a", b"b"], "a scan shows the state at its begin");
    assert_eq!(all_keys(&*engine, b"", None), [b"a", b"c"]);
}

fn reopening_keeps_everything(make: MakeBed<'_>) {
    const ROUNDS: u32 = 3;
    const COMMITS: u32 = 200;
    let mut bed = make();
    if !bed.survives() {
        return;
    }
    let mut expected = BTreeMap::new();
    for round in 0..ROUNDS {
        let engine = bed.engine();
        for i in 0..COMMITS {
            let (new, old) = ([round as u8, i as u8], [round.wrapping_sub(1) as u8, i as u8]);
            engine.commit(&batch(&[(&new, Some(&new)), (&old, None)])).expect("commit");
            expected.insert(new.to_vec(), new.to_vec());
            expected.remove(&old[..]);
        }
        // Not synced every time: closing is no crash.
        if round % 2 == 0 {
            engine.sync().expect("sync");
        }
        drop(engine);
        bed = bed.reopen();
        let found = scan(&*bed.engine(), b"", None, usize::MAX);
        assert_eq!(found, expected.clone().into_iter().collect::<Vec<_>>(), "round {round}");
    }
}

/// Plays a history and compares every answer, and the whole state at the end, with a `BTreeMap`.
pub fn check_history(mut bed: Box<dyn TestBed>, steps: &[Step]) {
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for step in steps {
        let engine = bed.engine();
        match step {
            Step::Commit(changes) => commit_both(&*engine, &mut model, changes),
            Step::Get(name) => assert_eq!(get(&*engine, name).as_deref(), model.get(name).map(Vec::as_slice)),
            Step::Scan(start, end, most) => {
                let in_range =
                    |name: &[u8]| name >= &start[..] && end.as_ref().is_none_or(|end| name < &end[..]);
                let expected: Vec<_> =
                    model.clone().into_iter().filter(|(name, _)| in_range(name)).take(*most).collect();
                assert_eq!(scan(&*engine, start, end.as_deref(), *most), expected);
            }
            Step::Snapshot(changes) => {
                let before: Vec<_> = model.clone().into_iter().collect();
                let snapshot = engine.snapshot().expect("snapshot");
                commit_both(&*engine, &mut model, changes);
                assert_eq!(scan(&*snapshot, b"", None, usize::MAX), before);
            }
            Step::Sync => engine.sync().expect("sync"),
            Step::Reopen => {
                drop(engine);
                if bed.survives() {
                    bed = bed.reopen();
                }
            }
        }
    }
    assert_eq!(scan(&*bed.engine(), b"", None, usize::MAX), model.into_iter().collect::<Vec<_>>());
}

fn commit_both(
    engine: &dyn Engine,
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    changes: &[(Vec<u8>, Option<Vec<u8>>)],
) {
    let changes: Vec<(&[u8], Option<&[u8]>)> =
        changes.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
    engine.commit(&batch(&changes)).expect("commit");
    for (name, value) in changes {
        match value {
            Some(value) => model.insert(name.to_vec(), value.to_vec()),
            None => model.remove(name),
        };
    }
}

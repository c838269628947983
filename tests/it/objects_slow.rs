//! Answers of an object store that are late: asked for a second time, within bounds.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use tests::s3::{Fault, RequestKind};
use tests::{Random, World};

use crate::help::{await_nothing_staged, binaries};

/// What a VMDS logs of a request that failed and is made again.
const FAILED: &str = "a range was not loaded";

/// The ranges of objects that VMDSes have asked for, in order.
fn ranges(world: &World) -> Vec<(String, u64)> {
    let asked = world.objects().requests_of(RequestKind::GetObject).into_iter();
    let of_vmds = asked.filter(|asked| asked.presigned && !asked.key.contains("probe"));
    of_vmds.map(|asked| (asked.key.clone(), *asked.range().unwrap().start())).collect()
}

fn asked_twice(world: &World) -> usize {
    let ranges = ranges(world);
    ranges.len() - ranges.iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn one_late_answer_of_the_store_is_overtaken_by_a_second_one() {
    let world = World::start_on_objects(binaries());
    let root = world.mounted("a");
    let mut random = Random::new(31);
    let (known, bytes) = (random.bytes(20_000_000), random.bytes(9_000_000));
    fs::write(root.join("known"), &known).unwrap();
    fs::write(root.join("file"), &bytes).unwrap();
    await_nothing_staged(&world);
    assert!(fs::read(root.join("known")).unwrap() == known, "what is usual is known now");
    world.objects().forget_requests();
    // Longer than a reader waits for one answer: without a second request the first would fail.
    let late = Fault::Latency(Duration::from_secs(60)).once().on(RequestKind::GetObject).after(2);
    let late = world.objects().faults().add(late);
    assert!(fs::read(root.join("file")).unwrap() == bytes);
    assert_eq!(world.objects().faults().hits(late), 1);
    assert!(asked_twice(&world) >= 1, "{:?}", ranges(&world));
    assert!(!world.log().contains(FAILED), "nothing has failed:\n{}", world.log());
}

#[test]
fn a_store_that_is_slow_altogether_is_hardly_asked_twice() {
    let world = World::start_on_objects(binaries());
    let root = world.mounted("a");
    let bytes = Random::new(32).bytes(40_000_000);
    fs::write(root.join("file"), &bytes).unwrap();
    await_nothing_staged(&world);
    world.objects().forget_requests();
    let slow = Fault::Latency(Duration::from_millis(1500)).always().on(RequestKind::GetObject);
    world.objects().faults().add(slow);
    assert!(fs::read(root.join("file")).unwrap() == bytes);
    let (all, twice) = (ranges(&world).len(), asked_twice(&world));
    assert!(all >= 10, "{all}");
    assert!(twice <= 1 + all / 20, "{twice} of {all} requests were made twice");
}

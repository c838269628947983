//! Promise: what a bucket has lost, or has too much of, is found; what is being worked on is not taken for it.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::s3::{Fault, RequestKind};
use tests::{Random, World, run, wait_until};

use crate::help::{SOON, binaries, ctl_as};

const BUCKET: &str = "vmds";
/// Larger than what is kept in the map.
const LARGE: usize = 20_000;

fn world() -> World {
    World::start_on_objects(binaries())
}

/// What a check finds; its exit code must fit to that.
#[track_caller]
fn check(world: &World, arguments: &[&str]) -> Value {
    let outcome =
        run(&mut world.ctl_command(&[&["-o", "json", "pool", "check", "objects"], arguments].concat()));
    let found: Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {outcome}\n{}", world.log()));
    let problems = found["found"].as_array().unwrap().len() as u64;
    assert_eq!(found["summary"]["problems"], problems, "{found}");
    assert_eq!(outcome.status.code(), Some(i32::from(problems > 0)), "{outcome}");
    found
}

/// The problems as `kind key path`.
fn problems(found: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let found = found["found"].as_array().unwrap().iter();
    found.map(|p| format!("{} {} {}", text(&p["problem"]), text(&p["key"]), text(&p["path"]))).collect()
}

fn fill(root: &std::path::Path, names: &[&str]) {
    for (seed, name) in names.iter().enumerate() {
        fs::write(root.join(name), Random::new(seed as u64).bytes(LARGE)).unwrap();
    }
}

/// The key of the object of a file.
fn key_of(world: &World, path: &str) -> String {
    let located = world.ctl_json(&["locate", path]);
    format!("pool/{}", located["ranges"][0]["key"].as_str().unwrap())
}

#[test]
fn what_happens_behind_its_back_is_found() {
    let world = world();
    let root = world.mounted("a");
    fs::create_dir(root.join("dir")).unwrap();
    fill(&root, &["whole", "dir/lost", "cut", "replaced"]);
    fs::write(root.join("small"), "in the map").unwrap();
    let clean = check(&world, &["--grace", "0s"]);
    assert_eq!(
        (clean["summary"]["objects"].as_u64(), clean["summary"]["files"].as_u64()),
        (Some(4), Some(4))
    );

    let bucket = world.objects().bucket(BUCKET);
    let key = |name: &str| key_of(&world, &format!("a:/{name}"));
    let (lost, cut, replaced) = (key("dir/lost"), key("cut"), key("replaced"));
    bucket.remove(&lost);
    bucket.put(&cut, bucket.get(&cut).unwrap().slice(..LARGE / 2));
    bucket.put(&replaced, Random::new(77).bytes(LARGE));
    let (left, strange) = (
        format!("{}.{}", lost.split('.').next().unwrap(), "0123456789abcdef".repeat(2)),
        "pool/00000001/strange".to_owned(),
    );
    for key in [&left, &strange, &"pool/of-somebody-else".to_owned(), &"elsewhere".to_owned()] {
        bucket.put(key, vec![1; 10]);
    }
    let wrong = [
        format!("missing {lost} /dir/lost"),
        format!("wrongSize {cut} /cut"),
        format!("wrongEtag {replaced} /replaced"),
    ];
    let too_many = [format!("orphan {left} -"), format!("orphan {strange} -")];
    assert_eq!(problems(&check(&world, &[])), wrong.iter().cloned().collect(), "the others are too young");
    let all = wrong.iter().chain(&too_many).cloned().collect();
    assert_eq!(problems(&check(&world, &["--grace", "0s"])), all);

    let told = run(&mut world.ctl_command(&["pool", "check", "objects", "--grace", "0"])).stdout;
    assert!(told.contains("wrongSize") && told.contains("a:/cut  (9.8KiB instead of 19.5KiB)"), "{told}");
    assert!(told.contains("checked 5 objects and 4 files: 5 problems\n"), "{told}");

    // What VMDS could have made is deleted, and nothing else.
    let repaired = check(&world, &["--grace", "0s", "--repair"]);
    assert_eq!(repaired["summary"]["repaired"], 1, "{repaired}");
    wait_until("the orphan is deleted", SOON, || bucket.get(&left).is_none());
    assert!(bucket.get(&strange).is_some() && bucket.get("elsewhere").is_some());
    assert_eq!(problems(&check(&world, &["--grace", "0s"])).len(), 4);
}

#[test]
fn files_without_any_object_are_found_over_many_pages() {
    let world = world();
    let root = world.mounted("a");
    let names: Vec<String> = (0..1_100).map(|number| format!("file-{number}")).collect();
    let bytes = vec![7; LARGE];
    names.iter().for_each(|name| fs::write(root.join(name), &bytes).unwrap());
    let bucket = world.objects().bucket(BUCKET);
    let kept: Vec<String> = bucket.keys().into_iter().step_by(100).collect();
    world.objects().forget_requests();
    assert_eq!(problems(&check(&world, &["--grace", "0s"])).len(), 0);
    let (lists, heads) = (RequestKind::ListObjectsV2, RequestKind::HeadObject);
    let asked = (world.objects().count(lists), world.objects().count(heads));
    assert!(asked.0 <= 8 && asked.1 == 0, "pages are read, not objects one by one: {asked:?}");
    bucket.keys().iter().filter(|key| !kept.contains(key)).for_each(|key| assert!(bucket.remove(key)));
    let found = check(&world, &["--grace", "0s"]);
    assert_eq!(problems(&found).len(), 1_100 - kept.len());
    bucket.keys().iter().for_each(|key| assert!(bucket.remove(key)));
    let found = check(&world, &["--grace", "0s"]);
    assert!(problems(&found).iter().all(|problem| problem.starts_with("missing ")));
    assert_eq!(problems(&found).len(), 1_100);
}

#[test]
fn work_that_goes_on_raises_no_alarm() {
    let world = world();
    let root = world.mounted("a");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..3_u64 {
            let (root, over) = (&root, &over);
            scope.spawn(move || {
                let mut random = Random::new(worker);
                while !over.load(Ordering::Relaxed) {
                    let path = root.join(format!("{worker}-{}", random.below(20)));
                    match random.below(3) {
                        0 => drop(fs::remove_file(&path)),
                        _ => fs::write(&path, random.bytes(LARGE)).unwrap(),
                    }
                }
            });
        }
        let checked = (0..15).map(|_| check(&world, &["--grace", "0s"])).map(|found| problems(&found));
        let alarms: Vec<_> = checked.filter(|problems| !problems.is_empty()).collect();
        over.store(true, Ordering::Relaxed);
        assert!(alarms.is_empty(), "{alarms:?}");
    });
    assert!(problems(&check(&world, &["--grace", "0s"])).is_empty());
}

#[test]
fn a_check_of_a_store_that_fails_says_so_and_only_the_operator_may_make_one() {
    let mut world = world();
    fill(&world.mounted("a"), &["file"]);
    let denied = Fault::Answer { status: 403, code: "AccessDenied" };
    world.objects().faults().add(denied.always().on(RequestKind::ListObjectsV2));
    let told = world.ctl_refuses(&["pool", "check", "objects"]);
    assert!(told.contains("the endpoint refuses access"), "{told}");
    world.objects().faults().clear();
    world.objects().faults().add(Fault::SLOW_DOWN.times(2).on(RequestKind::ListObjectsV2));
    assert!(problems(&check(&world, &[])).is_empty());
    let told = world.ctl_refuses(&["pool", "check", "default"]);
    assert!(told.contains("only pools in object stores"), "{told}");
    let told = ctl_as(&world, 12_345, &["pool", "check", "objects"]);
    assert!(told.stderr.contains("there is nothing here"), "{told}");
    // Nor does one that gets no answer keep the controller from ending.
    let silent = Fault::Latency(Duration::from_secs(3600)).always().on(RequestKind::ListObjectsV2);
    let silent = world.objects().faults().add(silent);
    let mut checking = world.ctl_command(&["pool", "check", "objects"]).spawn().unwrap();
    wait_until("the store was asked", SOON, || world.objects().faults().hits(silent) > 0);
    assert!(world.stop_controller().success());
    assert!(!checking.wait().unwrap().success());
}

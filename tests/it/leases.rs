//! Address leases: how long they last, and what is noted of them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;
use tests::s3::{Fault, Recorded, RequestKind};
use tests::{Random, World, wait_until};

use crate::help::{SOON, await_nothing_staged, binaries};

/// Larger than one request of a reader, by far.
const LARGE: usize = 40 * 1024 * 1024 + 5;

/// What the audit log holds, all of it.
fn audited(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.state_dir().join("audit/leases.jsonl")).unwrap();
    // The last line may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What VMDSes have asked the store for.
fn asked(world: &World) -> Vec<Recorded> {
    let mut asked = world.objects().requests_of(RequestKind::GetObject);
    asked.retain(|asked| asked.presigned && !asked.key.contains("probe"));
    asked
}

/// How long the addresses were to last that were used, in seconds.
fn lifetimes(world: &World) -> Vec<u64> {
    asked(world).iter().map(|asked| asked.parameter("X-Amz-Expires").unwrap().parse().unwrap()).collect()
}

/// Two tenants, one of whom shares a file with the other.
fn shared(options: &[&str]) -> (World, std::path::PathBuf, std::path::PathBuf, Vec<u8>) {
    let world = World::start_on_objects(binaries());
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("dir")).unwrap();
    let bytes = Random::new(41).bytes(LARGE);
    fs::write(alice.join("dir/file"), &bytes).unwrap();
    await_nothing_staged(&world);
    world.ctl(&[&["share", "grant", "alice:/dir", "bob:/dir", "--ro"], options].concat());
    world.objects().forget_requests();
    (world, alice, bob, bytes)
}

#[test]
fn the_strictest_limit_of_pool_share_and_its_end_is_how_long_an_address_lasts() {
    let (world, alice, bob, bytes) = shared(&["--lease-seconds", "7"]);
    assert!(fs::read(alice.join("dir/file")).unwrap() == bytes);
    let own = lifetimes(&world);
    assert!(!own.is_empty() && own.iter().all(|seconds| *seconds == 60), "{own:?}");
    world.objects().forget_requests();
    assert!(fs::read(bob.join("dir/file")).unwrap() == bytes);
    let through = lifetimes(&world);
    assert!(!through.is_empty() && through.iter().all(|seconds| *seconds == 7), "{through:?}");

    world.ctl(&[
        "share",
        "grant",
        "alice:/dir",
        "bob:/soon",
        "--ro",
        "--expires",
        "30s",
        "--lease-seconds",
        "3600",
    ]);
    world.objects().forget_requests();
    assert!(fs::read(bob.join("soon/file")).unwrap() == bytes);
    let ending = lifetimes(&world);
    assert!(!ending.is_empty() && ending.iter().all(|seconds| *seconds <= 30), "{ending:?}");
}

#[test]
fn a_lease_of_no_time_or_of_days_is_refused() {
    let (world, ..) = shared(&[]);
    for wrong in ["0", "3601"] {
        let told =
            world.ctl_refuses(&["share", "grant", "alice:/dir", "bob:/in", "--ro", "--lease-seconds", wrong]);
        assert!(told.contains("spec.leaseSeconds: a lease lasts 1 to 3600 seconds"), "{told}");
    }
}

#[test]
fn a_reader_who_takes_longer_than_a_lease_notices_nothing() {
    let (world, _, bob, bytes) = shared(&["--lease-seconds", "2"]);
    let slow = Fault::SlowBody { bytes_per_second: 4 << 20 };
    world.objects().faults().add(slow.always().on(RequestKind::GetObject));
    let mut file = File::open(bob.join("dir/file")).unwrap();
    let mut read = Vec::new();
    // However much is read ahead, the last request is made when three leases are over.
    let mut part = vec![0; 4 << 20];
    loop {
        match file.read(&mut part).unwrap() {
            0 => break,
            more => read.extend_from_slice(&part[..more]),
        }
        std::thread::sleep(Duration::from_millis(800));
    }
    assert!(read == bytes);
    let asked = asked(&world);
    assert!(asked.iter().all(|asked| asked.status == Some(206)), "no address was refused: {asked:?}");
    let dates: BTreeSet<_> = asked.iter().map(|asked| asked.parameter("X-Amz-Date")).collect();
    assert!(dates.len() > 2, "it was renewed again and again: {dates:?}");
}

#[test]
fn an_address_given_out_through_a_share_is_refused_by_the_store_when_its_time_is_over() {
    let (world, _, bob, bytes) = shared(&["--lease-seconds", "2"]);
    // The store looks at a request when it has been on its way for so long.
    let late = Fault::Latency(Duration::from_millis(3500)).times(3).on(RequestKind::GetObject);
    let late = world.objects().faults().add(late);
    assert!(fs::read(bob.join("dir/file")).unwrap() == bytes, "another address was asked for");
    assert_eq!(world.objects().faults().hits(late), 3);
    let refused = asked(&world).into_iter().filter(|asked| asked.status == Some(403)).count();
    assert!(refused > 0, "{:?}", asked(&world));
    assert!(world.log().contains("the object store refused the address"), "{}", world.log());
}

#[test]
fn a_receipt_says_until_when_addresses_lead_somewhere() {
    let (world, _, bob, bytes) = shared(&["--lease-seconds", "600"]);
    assert!(fs::read(bob.join("dir/file")).unwrap() == bytes);
    let told = world.ctl_json(&["share", "revoke", "alice:/dir", "bob"]);
    let receipt = &told[0]["status"]["receipt"];
    let last = receipt["lastLeaseEnds"].as_str().unwrap();
    assert!(last > receipt["at"].as_str().unwrap(), "{told}");
    let of_bob = |entry: &Value| entry["tenant"] == "bob" && entry["access"] == "address";
    wait_until("the last address of the audit log is that of the receipt", SOON, || {
        let entries = audited(&world);
        let ends = entries.iter().filter(|entry| of_bob(entry)).filter_map(|entry| entry["until"].as_str());
        ends.max() == Some(last)
    });
    assert!(fs::read(bob.join("dir/file")).is_err());
}

#[test]
fn every_lease_of_a_file_of_a_store_is_audited_and_no_signature_is() {
    let (world, alice, bob, bytes) = shared(&["--lease-seconds", "100"]);
    assert!(fs::read(bob.join("dir/file")).unwrap() == bytes);
    fs::write(alice.join("small"), b"few").unwrap();
    await_nothing_staged(&world);
    assert_eq!(fs::read(alice.join("small")).unwrap(), b"few");
    let found = |wanted: &dyn Fn(&Value) -> bool| {
        wait_until("it is in the audit log", SOON, || audited(&world).iter().any(wanted));
    };
    let share = world.ctl_json(&["share", "list"])["items"][0]["status"].clone();
    found(&|entry| entry["tenant"] == "alice" && entry["access"] == "write" && entry["through"].is_null());
    found(&|entry| entry["tenant"] == "alice" && entry["access"] == "bytes");
    found(&|entry| {
        let through = &entry["through"];
        let object = &entry["object"];
        let key = object["key"].as_str().unwrap_or_default();
        entry["tenant"] == "bob"
            && entry["access"] == "address"
            && through["share"] == share["shareId"]
            && through["owner"] == share["ownerId"]
            && object["size"] == LARGE
            && world.objects().bucket("vmds").info(key).is_some_and(|info| {
                object["etag"].as_str().unwrap().trim_matches('"') == info.etag.trim_matches('"')
            })
            && entry["until"].as_str() > entry["time"].as_str()
    });
    let directory = world.state_dir().join("audit");
    let text = fs::read_to_string(directory.join("leases.jsonl")).unwrap();
    for secret in ["Signature", "X-Amz", "root-secret"] {
        assert!(!text.contains(secret), "{text}");
    }
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("leases.jsonl"))), (0o700, 0o600));
}

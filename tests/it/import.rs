//! Promise: objects that are in a bucket appear as files, without a copy, and stay what they are.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use tests::s3::{Fault, RequestKind};
use tests::{Random, World, run, wait_until};

use crate::help::{SOON, assert_errno, binaries, ctl_as, names};

pub(crate) fn world() -> World {
    World::start_on_objects(binaries())
}

/// Puts objects with different bytes under these keys, and tells them.
pub(crate) fn put(world: &World, keys: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let bucket = world.bucket();
    let objects = keys.iter().enumerate().map(|(number, key)| {
        let bytes = Random::new(number as u64).bytes(1_000 * number + 1);
        bucket.put(key, bytes.clone());
        ((*key).to_owned(), bytes)
    });
    objects.collect()
}

/// The keys of the bucket, but for those that a probe tries.
pub(crate) fn keys(world: &World) -> Vec<String> {
    let keys = world.bucket().keys().into_iter();
    keys.filter(|key| !key.contains(".vmds-probe-")).collect()
}

pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path().to_str().unwrap().to_owned());
        }
    }
    found.sort_unstable();
    found
}

/// Every object below a prefix of plain keys is a file with its bytes, and nothing else is there.
#[track_caller]
pub(crate) fn assert_shows(dir: &Path, prefix: &str, objects: &BTreeMap<String, Vec<u8>>) {
    let paths = objects.keys().map(|key| dir.join(key.strip_prefix(prefix).unwrap()));
    let mut paths: Vec<_> = paths.map(|path| path.to_str().unwrap().to_owned()).collect();
    paths.sort_unstable();
    assert_eq!(files(dir), paths);
    for (key, bytes) in objects {
        let path = dir.join(key.strip_prefix(prefix).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64, "{key}");
        assert!(fs::read(&path).unwrap() == *bytes, "{key}");
    }
}

pub(crate) const DATA: [&str; 6] = [
    "data/train/a.csv",
    "data/train/b.csv",
    "data/train/deep/er/c.csv",
    "data/train/deep/d.csv",
    "data/train/z",
    "data/train/empty",
];

#[test]
fn objects_appear_as_files_without_a_copy_and_survive_crashes() {
    let mut world = world();
    let root = world.mounted("a");
    let mut objects = put(&world, &DATA);
    put(&world, &["data/trainer", "data/other/file"]);
    world.bucket().put("data/train/empty", "");
    objects.insert("data/train/empty".to_owned(), Vec::new());
    let before = keys(&world);
    let told = world.ctl(&[
        "import",
        &world.place("data/train"),
        "a:/in/train",
        "--uid",
        "7",
        "--gid",
        "8",
        "--mode",
        "640",
    ]);
    assert!(told.starts_with("imported 6 files of ") && told.contains(" in 2 directories"), "{told}");
    let dir = root.join("in/train");
    assert_shows(&dir, "data/train/", &objects);
    let (file, deep) = (fs::metadata(dir.join("z")).unwrap(), fs::metadata(dir.join("deep")).unwrap());
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (7, 8, 0o640));
    assert_eq!((deep.uid(), deep.gid(), deep.mode() & 0o7777), (7, 8, 0o750));
    assert!(file.modified().unwrap().elapsed().unwrap() < Duration::from_secs(600));
    world.vmds().signal(Signal::KILL);
    assert_shows(&dir, "data/train/", &objects);
    world.crash_controller();
    assert_shows(&dir, "data/train/", &objects);
    assert_eq!(keys(&world), before, "nothing was copied");
    let located = world.ctl_json(&["locate", "a:/in/train/a.csv"]);
    assert_eq!(located["ranges"][0]["key"], "/data/train/a.csv", "{located}");
    world.ctl(&["check"]);
    world.ctl(&["pool", "check", "objects", "--grace", "0s"]);
}

#[test]
fn what_is_removed_or_overwritten_is_not_touched_in_the_bucket() {
    let world = world();
    let root = world.mounted("a");
    let objects = put(&world, &DATA);
    world.ctl(&["import", &world.place("data"), "a:/data"]);
    let dir = root.join("data/train");
    fs::remove_file(dir.join("a.csv")).unwrap();
    let changed = Random::new(99).bytes(50_000);
    fs::write(dir.join("b.csv"), &changed).unwrap();
    let patched = OpenOptions::new().write(true).open(dir.join("z")).unwrap();
    patched.write_all_at(b"!", 100).unwrap();
    drop(patched);
    fs::rename(dir.join("deep"), root.join("moved")).unwrap();
    let mut expected = objects["data/train/z"].clone();
    expected[100] = b'!';
    assert!(fs::read(dir.join("z")).unwrap() == expected);
    assert!(fs::read(dir.join("b.csv")).unwrap() == changed);
    assert!(fs::read(root.join("moved/d.csv")).unwrap() == objects["data/train/deep/d.csv"]);
    fs::remove_dir_all(root.join("moved")).unwrap();
    // Nor is one of them noted as something to be deleted.
    world.ctl(&["pool", "check", "objects", "--grace", "0s", "--repair"]);
    for (key, bytes) in &objects {
        assert_eq!(world.bucket().get(key).as_deref(), Some(&bytes[..]), "{key}");
    }
    world.ctl(&["tenant", "delete", "a", "--purge"]);
    assert_eq!(keys(&world), objects.keys().cloned().collect::<Vec<_>>(), "only ours are gone");
}

#[test]
fn what_changes_underneath_is_stale_and_never_wrong() {
    let world = world();
    let root = world.mounted("a");
    let objects = put(&world, &DATA);
    world.ctl(&["import", &world.place("data/train"), "a:/train"]);
    let dir = root.join("train");
    let other = Random::new(77).bytes(objects["data/train/b.csv"].len());
    world.bucket().put("data/train/b.csv", other);
    world.bucket().remove("data/train/z");
    for name in ["b.csv", "z"] {
        assert_errno(fs::read(dir.join(name)), Errno::STALE);
        // So it is for who writes a part of it and needs the rest.
        let mut file = OpenOptions::new().read(true).append(true).open(dir.join(name)).unwrap();
        assert_errno(file.write_all(b"more").and_then(|()| file.read(&mut [0; 8]).map(drop)), Errno::STALE);
        drop(file);
    }
    assert!(fs::read(dir.join("a.csv")).unwrap() == objects["data/train/a.csv"]);
    let outcome = run(&mut world.ctl_command(&["pool", "check", "objects"]));
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stdout.contains("wrongEtag data/train/b.csv  a:/train/b.csv"), "{outcome}");
    assert!(outcome.stdout.contains("missing   data/train/z  a:/train/z"), "{outcome}");
    fs::write(dir.join("z"), "another one").unwrap();
    assert_eq!(fs::read(dir.join("z")).unwrap(), b"another one");
}

#[test]
fn many_objects_are_imported_in_pieces_and_after_an_interruption_the_rest() {
    let mut world = world();
    let root = world.mounted("a");
    let bucket = world.bucket();
    let count = 5_000;
    for number in 0..count {
        bucket.put(&format!("many/{}/{number:05}", number % 7), format!("bytes of {number}"));
    }
    // The controller dies with some pages to go.
    let slow = Fault::Latency(Duration::from_secs(3600));
    let fault = world.objects().faults().add(slow.always().on(RequestKind::ListObjectsV2).after(3));
    let mut importing = world.ctl_command(&["import", &world.place("many"), "a:/many"]).spawn().unwrap();
    wait_until("the import is under way", SOON, || world.objects().faults().hits(fault) > 0);
    world.crash_controller();
    assert!(!importing.wait().unwrap().success());
    world.objects().faults().clear();
    let there = files(&root.join("many")).len();
    assert!((1_000..count).contains(&there), "{there}");
    let refused = world.ctl_refuses(&["import", &world.place("many/1"), "a:/many"]);
    assert!(refused.contains("is not an empty directory"), "{refused}");
    let told = world.ctl(&["import", &world.place("many"), "a:/many"]);
    assert!(told.starts_with(&format!("imported {} files", count - there)), "{told}");
    assert_eq!(files(&root.join("many")).len(), count);
    for number in [0, 999, 1_000, 4_999] {
        let path = root.join(format!("many/{}/{number:05}", number % 7));
        assert_eq!(fs::read_to_string(path).unwrap(), format!("bytes of {number}"));
    }
    let told = world.ctl(&["import", &world.place("many"), "a:/many"]);
    assert!(told.starts_with("imported 0 files"), "once more changes nothing: {told}");
    world.ctl(&["check"]);
}

#[test]
fn odd_keys_have_paths_of_their_own() {
    let long = format!("odd/{}/{}", "d".repeat(300), "f".repeat(600));
    let keys = [
        "odd/a",
        "odd/a/b",
        "odd/a//b",
        "odd//c",
        "odd/./d",
        "odd/../e",
        "odd/f%2Fg",
        "odd/g h+i&<ü>",
        "odd/nul\0",
        "odd/line\nfeed",
        "odd/dir/",
        "odd/dir/x",
        &long,
    ];
    let paths = [
        "a",
        "a%2F/b",
        "a%2F/%2F/b",
        "%2F/c",
        "%2E/d",
        "%2E%2E/e",
        "f%252Fg",
        "g h+i&<ü>",
        "nul%00",
        "line\nfeed",
        "dir/%2F",
        "dir/x",
    ];
    for lazy in [false, true] {
        let world = world();
        let root = world.mounted("a");
        let there: Vec<&str> = keys.into_iter().filter(|key| world.bucket().takes(key)).collect();
        let objects = put(&world, &there);
        world.bucket().put("odd/folder/", "");
        let place = world.place("odd");
        let words = ["import", &place, "a:/odd", "--lazy"];
        world.ctl(&words[..if lazy { 4 } else { 3 }]);
        for (key, path) in keys.iter().zip(paths).filter(|(key, _)| there.contains(key)) {
            assert!(fs::read(root.join("odd").join(path)).unwrap() == objects[*key], "{key:?} at {path}");
        }
        assert_eq!(names(&root.join("odd/folder")).len(), 0, "a marker is a directory");
        let found = files(&root.join("odd"));
        assert_eq!(found.len(), there.len(), "{found:?}");
        let other = found.iter().find(|path| path.contains("ddd")).unwrap();
        assert!(fs::read(other).unwrap() == objects[&long]);
        world.ctl(&["check"]);
        world.ctl(&["pool", "check", "objects"]);
    }
}

#[test]
fn an_import_is_shared_like_everything_else() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    let objects = put(&world, &DATA);
    world.ctl(&["import", &world.place("data"), "alice:/now"]);
    world.ctl(&["import", &world.place("data"), "alice:/later", "--lazy"]);
    // The way there leads through what nobody has looked into.
    world.ctl(&["share", "grant", "alice:/later/train/deep", "bob:/deep", "--rw"]);
    world.ctl(&["share", "grant", "alice:/now/train", "bob:/train", "--ro"]);
    assert_shows(&bob.join("train"), "data/train/", &objects);
    assert!(fs::read(bob.join("deep/er/c.csv")).unwrap() == objects["data/train/deep/er/c.csv"]);
    fs::write(bob.join("deep/er/c.csv"), "bob's").unwrap();
    assert_eq!(fs::read(alice.join("later/train/deep/er/c.csv")).unwrap(), b"bob's");
    assert!(fs::read(alice.join("now/train/deep/er/c.csv")).unwrap() == objects["data/train/deep/er/c.csv"]);
    world.ctl(&["share", "revoke", "alice:/now/train", "bob"]);
    assert_errno(fs::read(bob.join("train/z")), Errno::NOENT);
    let located = world.ctl_json(&["locate", "alice:/later/train/deep/d.csv"]);
    assert_eq!(located["ranges"][0]["key"], "/data/train/deep/d.csv");
    world.ctl(&["check"]);
}

#[test]
fn quotas_are_charged_and_end_an_import_in_one_piece() {
    let world = world();
    for number in 0..600 {
        world.bucket().put(&format!("many/{number:04}"), vec![b'x'; 100]);
    }
    world.tenant_with("a", &["--quota-bytes", "50000"]);
    let root = world.mount("a");
    let refused = world.ctl_refuses(&["import", &world.place("many"), "a:/many"]);
    assert!(refused.contains("the tenant's quota is used up after 256 files"), "{refused}");
    assert_eq!(files(&root.join("many")).len(), 256);
    world.ctl(&["check"]);
    world.ctl(&["import", &world.place("many"), "a:/lazy", "--lazy"]);
    assert_errno(fs::read(root.join("lazy/0000")), Errno::DQUOT);
    world.ctl(&["check"]);
    fs::remove_dir_all(root.join("many")).unwrap();
    assert_errno(fs::read(root.join("lazy/0000")), Errno::DQUOT);
    let manifest = world.dir().join("tenant.json");
    let wanted = r#"{"apiVersion":"vmds/v1","kind":"Tenant","metadata":{"name":"a"},"spec":{"pool":"objects","quota":{"bytes":100000}}}"#;
    fs::write(&manifest, wanted).unwrap();
    world.ctl(&["apply", "--wait", "-f", manifest.to_str().unwrap()]);
    assert_eq!(names(&root.join("lazy")).len(), 600);
    world.ctl(&["check"]);
    assert_eq!(world.ctl_json(&["get", "tenant", "a"])["status"]["usage"]["bytes"], 60_000);
}

#[test]
fn a_tenant_of_another_pool_imports_too_and_keeps_the_pool_from_being_removed() {
    let world = world();
    world.ctl(&["tenant", "create", "a", "--pool", "default"]);
    let root = world.mount("a");
    let objects = put(&world, &DATA);
    world.ctl(&["import", &world.place("data"), "a:/data"]);
    assert_shows(&root.join("data"), "data/", &objects);
    let changed = Random::new(5).bytes(100_000);
    fs::write(root.join("data/train/z"), &changed).unwrap();
    assert!(fs::read(root.join("data/train/z")).unwrap() == changed);
    assert_eq!(keys(&world).len(), objects.len() + 1, "what was written is beside the others");
    let told = world.ctl_refuses(&["pool", "remove", "objects"]);
    assert!(told.contains("are in the pool, imported"), "{told}");
    assert!(fs::read(root.join("data/train/z")).unwrap() == changed);
    fs::remove_dir_all(root.join("data")).unwrap();
    world.ctl(&["pool", "remove", "objects"]);
}

#[test]
fn imports_that_cannot_be() {
    let world = world();
    let (root, _) = (world.mounted("a"), world.mounted("b"));
    put(&world, &["data/x", "pool/00000001/0/strange"]);
    fs::create_dir(root.join("full")).unwrap();
    fs::write(root.join("full/file"), "x").unwrap();
    world.ctl(&["share", "grant", "a:/full", "b:/share", "--rw"]);
    for (words, why) in [
        (["vmds/data", "a:/full"], "is there and is not an empty directory"),
        (["vmds/data", "a:/full/file"], "not a directory"),
        (["vmds/data", "a:/full/file/x"], "not a directory"),
        (["vmds/data", "b:/share/x"], "leads into a share from another tenant"),
        (["other/data", "a:/x"], "no pool has the bucket other"),
        (["vmds/pool/00000001", "a:/x"], "cannot be imported"),
        (["vmds/data", "nobody:/x"], "there is no tenant 'nobody'"),
    ] {
        let told = world.ctl_refuses(&["import", words[0], words[1]]);
        assert!(told.contains(why), "{words:?}: {told}");
    }
    let told = world.ctl(&["import", "vmds", "a:/all"]);
    assert!(told.contains("imported 1 files") && told.contains("; 1 objects were left out"), "{told}");
    assert_eq!(names(&root), ["all", "full"]);
    let told = ctl_as(&world, 12_345, &["import", "vmds/data", "a:/mine"]);
    assert!(told.stderr.contains("there is nothing here"), "{told}");
}

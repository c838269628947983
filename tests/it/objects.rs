//! Tenants whose bytes are in an object store.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use tests::{Random, World};

use crate::help::binaries;

/// Larger than what is kept in the map, and than one part of an upload.
const LARGE: usize = 40 * 1024 * 1024 + 12_345;

fn world() -> World {
    World::start_on_objects(binaries())
}

#[test]
fn what_is_written_is_in_the_store_when_close_has_returned_and_is_read_from_there() {
    let world = world();
    let root = world.mounted("a");
    let mut random = Random::new(1);
    for (name, size) in [("empty", 0), ("small", 100), ("medium", 100_000), ("large", LARGE)] {
        let bytes = random.bytes(size);
        fs::write(root.join(name), &bytes).unwrap();
        assert_eq!(fs::read(root.join(name)).unwrap(), bytes, "{name}");
    }
    let bucket = world.objects().bucket("vmds");
    let mut sizes: Vec<u64> = bucket.keys().iter().map(|key| bucket.info(key).unwrap().length).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [100_000, LARGE as u64], "small files are in the map, others one object each");
    assert!(bucket.uploads().is_empty());
    world.ctl(&["check"]);
}

#[test]
fn a_file_is_changed_in_place_and_grows_out_of_the_map_and_back() {
    let world = world();
    let root = world.mounted("a");
    let path = root.join("file");
    let mut random = Random::new(2);
    let mut expected = random.bytes(10);
    fs::write(&path, &expected).unwrap();
    for size in [20_000_usize, 9 * 1024 * 1024, 5, 100_000] {
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_len(size as u64).unwrap();
        expected.resize(size, 0);
        let patch = random.bytes(3);
        let at = random.below(size as u64 - 3);
        file.write_all_at(&patch, at).unwrap();
        expected[at as usize..at as usize + 3].copy_from_slice(&patch);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), expected, "{size}");
        assert_eq!(fs::metadata(&path).unwrap().len(), size as u64);
    }
    world.ctl(&["check"]);
}

#[test]
fn reading_anywhere_in_a_large_file_gives_what_is_there() {
    let world = world();
    let root = world.mounted("a");
    let mut random = Random::new(3);
    let bytes = random.bytes(LARGE);
    fs::write(root.join("large"), &bytes).unwrap();
    let mut file = File::open(root.join("large")).unwrap();
    for _ in 0..200 {
        let at = random.below(LARGE as u64) as usize;
        let length = (random.below(300_000) as usize).min(LARGE - at);
        let mut part = vec![0; length];
        file.read_exact_at(&mut part, at as u64).unwrap();
        assert!(part == bytes[at..at + length], "{length} bytes at {at}");
    }
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
}

#[test]
fn a_write_goes_on_and_is_read_by_others_meanwhile() {
    let world = world();
    let root = world.mounted("a");
    let path = root.join("log");
    fs::write(&path, vec![b'x'; 50_000]).unwrap();
    let mut reader = File::open(&path).unwrap();
    let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
    writer.write_all(b"one").unwrap();
    reader.seek(SeekFrom::Start(50_000)).unwrap();
    let mut tail = String::new();
    reader.read_to_string(&mut tail).unwrap();
    assert_eq!(tail, "one");
    writer.write_all(b"two").unwrap();
    writer.sync_all().unwrap();
    drop(writer);
    reader.read_to_string(&mut tail).unwrap();
    assert_eq!(tail, "onetwo");
}

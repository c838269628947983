//! Promise: the controller says where a file's bytes really are, and they are there.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::World;

use crate::help::{assert_unknown, world};

/// What `locate` tells of a file that has its bytes in one place.
#[track_caller]
fn place(world: &World, path: &str) -> Value {
    let told = world.ctl_json(&["locate", path]);
    match told["ranges"].as_array().map(Vec::as_slice) {
        Some([range]) => range.clone(),
        _ => panic!("expected one place: {told}"),
    }
}

#[test]
fn the_bytes_of_a_file_are_where_locate_says() {
    let world = world();
    let alice = world.mounted("alice");
    fs::create_dir(alice.join("data")).unwrap();
    fs::write(alice.join("data/report.csv"), "a,b\n1,2\n").unwrap();
    let found = place(&world, "alice:/data/report.csv");
    assert_eq!(world.bytes_at(&found), b"a,b\n1,2\n");
    let (key, own) = (found["key"].to_string(), found["path"].as_str());
    assert!(own.is_none_or(|path| Path::new(path).starts_with(world.backing_dir())), "{found}");
    assert!(!key.contains("alice") && !key.contains("report"), "the address tells names: {key}");
    // A new name leads to the same bytes; a removed one to nothing, and the bytes go.
    fs::rename(alice.join("data/report.csv"), alice.join("old")).unwrap();
    assert_eq!(place(&world, "alice:/old"), found);
    world.ctl_refuses(&["locate", "alice:/data/report.csv"]);
    fs::remove_file(alice.join("old")).unwrap();
    assert_unknown(&alice.join("old"));
    world.ctl_refuses(&["locate", "alice:/old"]);
}

#[test]
fn through_a_share_the_grantee_is_told_the_same_place() {
    let world = world();
    let alice = world.mounted("alice");
    world.mounted("bob");
    fs::write(alice.join("file"), "bytes").unwrap();
    world.ctl(&["share", "grant", "alice:/file", "bob:/in/file", "--ro"]);
    let found = place(&world, "alice:/file");
    assert_eq!(place(&world, "bob:/in/file"), found);
    assert_eq!(world.bytes_at(&found), b"bytes");
    world.ctl(&["share", "revoke", "alice:/file", "bob"]);
    world.ctl_refuses(&["locate", "bob:/in/file"]);
}

//! Promise: the controller says where a file's bytes really are, and they are there.

use std::fs;

use serde_json::Value;
use tests::World;

use crate::help::{assert_unknown, world};

/// The paths of the pool that an answer of `locate` names.
fn objects(world: &World, path: &str) -> Vec<String> {
    fn strings(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) if text.starts_with('/') => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
            Value::Object(fields) => fields.values().for_each(|field| strings(field, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    strings(&world.ctl_json(&["locate", path]), &mut found);
    found.retain(|path| path.starts_with(world.state_dir().to_str().unwrap()));
    found
}

#[test]
fn the_bytes_of_a_file_are_where_locate_says() {
    let world = world();
    let alice = world.mounted("alice");
    fs::create_dir(alice.join("data")).unwrap();
    fs::write(alice.join("data/report.csv"), "a,b\n1,2\n").unwrap();
    let found = objects(&world, "alice:/data/report.csv");
    let [object] = &found[..] else { panic!("expected one file of the pool: {found:?}") };
    assert_eq!(fs::read_to_string(object).unwrap(), "a,b\n1,2\n");
    assert!(!object.contains("alice") && !object.contains("report"), "the address tells names: {object}");
    // A new name leads to the same bytes; a removed one to nothing, and the bytes go.
    fs::rename(alice.join("data/report.csv"), alice.join("old")).unwrap();
    assert_eq!(objects(&world, "alice:/old"), found);
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
    let found = objects(&world, "alice:/file");
    assert_eq!(objects(&world, "bob:/in/file"), found);
    assert_eq!(found.len(), 1);
    world.ctl(&["share", "revoke", "alice:/file", "bob"]);
    world.ctl_refuses(&["locate", "bob:/in/file"]);
}

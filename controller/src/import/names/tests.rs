//! Distinct keys are distinct paths, and the key can be told of the path: shown on keys made of everything that is odd.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum There {
    Directory,
    File(String),
}

/// A tree in which objects appear as they do in a real one, in the order of their keys.
#[derive(Default)]
struct Tree(BTreeMap<Vec<Name>, There>);

impl Tree {
    fn add(&mut self, key: &str, size: u64) -> (Vec<Name>, bool) {
        let place = place(key, size);
        let mut at = Vec::new();
        for step in place.directories {
            at = self.make(&at, &step, There::Directory);
        }
        match place.file {
            Some(step) => (self.make(&at, &step, There::File(key.to_owned())), false),
            None => (at, true),
        }
    }

    fn make(&mut self, above: &[Name], step: &Step, what: There) -> Vec<Name> {
        for name in &step.names {
            let path = [above, std::slice::from_ref(name)].concat();
            match self.0.get(&path) {
                Some(there) if *there != what => {}
                _ => {
                    self.0.insert(path.clone(), what);
                    return path;
                }
            }
        }
        panic!("{step:?} is taken twice in {:?}", self.0);
    }
}

/// The key of the object that a path stands for.
fn key_of(path: &[Name], is_directory: bool) -> String {
    let (mut parts, mut begun) = (Vec::new(), String::new());
    for name in path {
        let name = std::str::from_utf8(name.as_bytes()).unwrap();
        if let Some(piece) = name.strip_suffix(GOES_ON) {
            begun += &unescaped(piece);
            continue;
        }
        let own = if name == SLASH { "" } else { name.strip_suffix(SLASH).unwrap_or(name) };
        let own = if own == SLASH { "" } else { own };
        parts.push(std::mem::take(&mut begun) + &unescaped(own));
    }
    assert!(begun.is_empty(), "a name that goes on is the last of {path:?}");
    parts.join("/") + if is_directory { "/" } else { "" }
}

fn unescaped(name: &str) -> String {
    let (mut text, mut rest) = (String::new(), name);
    while let Some(at) = rest.find('%') {
        text += &rest[..at];
        rest = &rest[at..];
        if is_escape(rest) {
            text.push(char::from(u8::from_str_radix(&rest[1..3], 16).unwrap()));
            rest = &rest[3..];
        } else {
            text.push('%');
            rest = &rest[1..];
        }
    }
    text + rest
}

fn shown(path: &[Name]) -> String {
    path.iter().map(|name| format!("/{name}")).collect()
}

#[test]
fn odd_keys_have_the_paths_that_are_documented() {
    let mut tree = Tree::default();
    for (key, size, path) in [
        ("plain/key.txt", 1, "/plain/key.txt"),
        ("a", 1, "/a"),
        ("a/b", 1, "/a%2F/b"),
        ("a//b", 1, "/a%2F/%2F/b"),
        ("dir/", 0, "/dir"),
        ("bytes/", 7, "/bytes/%2F"),
        ("/leading", 1, "/%2F/leading"),
        ("./x/../y", 1, "/%2E/x/%2E%2E/y"),
        ("...", 1, "/..."),
        ("a%2Fb", 1, "/a%252Fb"),
        ("100% or 50%2f", 1, "/100% or 50%2f"),
        ("nul\0", 1, "/nul%00"),
    ] {
        let (found, is_directory) = tree.add(key, size);
        assert_eq!(shown(&found), path, "{key:?}");
        assert_eq!(key_of(&found, is_directory), key);
    }
    let long = "x".repeat(600);
    let (found, _) = tree.add(&long, 1);
    let lengths: Vec<_> = found.iter().map(|name| name.as_bytes().len()).collect();
    assert_eq!((lengths, key_of(&found, false)), (vec![255, 255, 96], long));
    assert_eq!(tree.add(&"y".repeat(255), 1).0.len(), 1);
}

fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{0,2}",
        2 => prop::sample::select(vec![".", "..", "", "%", "%2F", "%2B", "%25", "%2E", "%00", "%2F%2F", "%2f"])
            .prop_map(str::to_owned),
        2 => "[ab%2FB5E.\\x00ü]{0,6}",
        1 => (240..270_usize, "[ab%2F.ü]{0,3}").prop_map(|(length, end)| "%".repeat(length) + &end),
        1 => (250..256_usize, "[.%]{0,3}").prop_map(|(length, end)| "x".repeat(length) + &end),
        1 => (500..512_usize, "[.%]{0,3}").prop_map(|(length, end)| "x".repeat(length) + &end),
    ]
}

fn keys() -> impl Strategy<Value = BTreeMap<String, u64>> {
    let key = prop::collection::vec(part(), 1..4).prop_map(|parts| parts.join("/"));
    prop::collection::btree_map(
        key.prop_filter("there is no empty key", |key| !key.is_empty()),
        0..2_u64,
        0..25,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn distinct_keys_are_distinct_paths_that_tell_their_keys(keys in keys()) {
        let (mut tree, mut seen) = (Tree::default(), BTreeSet::new());
        for (key, size) in &keys {
            let (path, is_directory) = tree.add(key, *size);
            prop_assert_eq!(&key_of(&path, is_directory), key);
            prop_assert!(seen.insert(path), "{:?} has the path of another key", key);
        }
        // Whoever comes again finds the same.
        let before = tree.0.clone();
        keys.iter().for_each(|(key, size)| drop(tree.add(key, *size)));
        prop_assert_eq!(before, tree.0);
    }
}

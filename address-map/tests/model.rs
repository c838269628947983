//! Random histories on a real shard against a plain reference tree: same answers, same tree, clean check.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail right there")]

use std::collections::BTreeMap;
use std::sync::Arc;

use address_map::attr::{AttrChange, Caller, FileKind, NewMode, Timestamp};
use address_map::clock::ManualClock;
use address_map::engine::MemoryEngine;
use address_map::error::Refusal;
use address_map::ids::{Ino, PoolId, ShardId, TenantId};
use address_map::map::{AddressMap, Tree};
use address_map::name::Name;
use address_map::namespace::rename::Place;
use address_map::namespace::tenant::NewTenant;
use address_map::namespace::{attr, create, link, list, lookup, object, remove, rename, tenant, xattr};
use address_map::record::{Entry, Quota};
use address_map::shard::{Records, Shard};
use address_map::wire::{Make, RenameMode, XattrMode};
use proptest::prelude::*;

/// Behind every time at which something is to be deleted.
const LATER: Timestamp = Timestamp { sec: i64::MAX, nsec: 0 };

type Outcome = Result<(), Refusal>;
type Path = Vec<u8>;

#[derive(Clone, Debug)]
enum Op {
    Make(Path, FileKind),
    Link(Path, Path),
    Unlink(Path),
    Rmdir(Path),
    Rename(Path, Path, RenameMode),
    Resize(Path, u64),
    Chmod(Path, u32),
    SetXattr(Path, u8, XattrMode),
    RemoveXattr(Path, u8),
}

const QUOTA: Quota = Quota { bytes: Some(2000), inodes: Some(24) };

/// The reference: inodes in a map, directories as maps of names. Slow and obvious.
#[derive(Default)]
struct Reference {
    nodes: BTreeMap<u32, Node>,
    next: u32,
}

#[derive(Clone, Debug)]
struct Node {
    kind: FileKind,
    children: BTreeMap<u8, u32>,
    size: u64,
    mode: u32,
    xattrs: Vec<u8>,
}

impl Reference {
    fn new() -> Self {
        let mut new = Self::default();
        new.add(FileKind::Directory);
        new
    }

    fn add(&mut self, kind: FileKind) -> u32 {
        let node = Node { kind, children: BTreeMap::new(), size: 0, mode: 0o644, xattrs: vec![] };
        self.nodes.insert(self.next, node);
        self.next += 1;
        self.next - 1
    }

    fn find(&self, path: &[u8]) -> Result<u32, Refusal> {
        path.iter().try_fold(0, |at, name| {
            let node = &self.nodes[&at];
            if node.kind != FileKind::Directory {
                return Err(Refusal::NotDirectory);
            }
            node.children.get(name).copied().ok_or(Refusal::NotFound)
        })
    }

    fn parent(&self, path: &[u8]) -> Result<(u32, u8), Refusal> {
        let (name, parents) = path.split_last().expect("paths have names");
        let parent = self.find(parents)?;
        match self.nodes[&parent].kind {
            FileKind::Directory => Ok((parent, *name)),
            _ => Err(Refusal::NotDirectory),
        }
    }

    fn names(&self, id: u32) -> usize {
        self.nodes.values().flat_map(|node| node.children.values()).filter(|child| **child == id).count()
    }

    fn collect(&mut self) {
        let gone: Vec<u32> =
            self.nodes.keys().copied().filter(|id| *id != 0 && self.names(*id) == 0).collect();
        gone.iter().for_each(|id| drop(self.nodes.remove(id)));
    }

    fn bytes(&self) -> u64 {
        self.nodes.values().filter(|node| node.kind == FileKind::File).map(|node| node.size).sum()
    }

    fn is_below(&self, id: u32, ancestor: u32) -> bool {
        id == ancestor || self.nodes[&ancestor].children.values().any(|child| self.is_below(id, *child))
    }

    fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Make(path, kind) => {
                let (parent, name) = self.parent(path)?;
                if self.nodes[&parent].children.contains_key(&name) {
                    return Err(Refusal::Exists);
                }
                if self.nodes.len() as u64 >= QUOTA.inodes.unwrap() {
                    return Err(Refusal::Quota);
                }
                let id = self.add(*kind);
                self.nodes.get_mut(&parent).unwrap().children.insert(name, id);
            }
            Op::Link(from, to) => {
                let id = self.find(from)?;
                if self.nodes[&id].kind == FileKind::Directory {
                    return Err(Refusal::NotPermitted);
                }
                let (parent, name) = self.parent(to)?;
                if self.nodes[&parent].children.contains_key(&name) {
                    return Err(Refusal::Exists);
                }
                self.nodes.get_mut(&parent).unwrap().children.insert(name, id);
            }
            Op::Unlink(path) => {
                let (parent, name) = self.parent(path)?;
                let id = self.find(path)?;
                if self.nodes[&id].kind == FileKind::Directory {
                    return Err(Refusal::IsDirectory);
                }
                self.nodes.get_mut(&parent).unwrap().children.remove(&name);
            }
            Op::Rmdir(path) => {
                let (parent, name) = self.parent(path)?;
                let node = &self.nodes[&self.find(path)?];
                match (node.kind, node.children.is_empty()) {
                    (FileKind::Directory, true) => {}
                    (FileKind::Directory, false) => return Err(Refusal::NotEmpty),
                    _ => return Err(Refusal::NotDirectory),
                }
                self.nodes.get_mut(&parent).unwrap().children.remove(&name);
            }
            Op::Rename(from, to, mode) => self.rename(from, to, *mode)?,
            Op::Resize(path, size) => {
                let id = self.find(path)?;
                let node = &self.nodes[&id];
                match node.kind {
                    FileKind::File => {}
                    FileKind::Directory => return Err(Refusal::IsDirectory),
                    _ => return Err(Refusal::Invalid),
                }
                if *size > node.size && self.bytes() - node.size + size > QUOTA.bytes.unwrap() {
                    return Err(Refusal::Quota);
                }
                self.nodes.get_mut(&id).unwrap().size = *size;
            }
            Op::Chmod(path, mode) => {
                let id = self.find(path)?;
                self.nodes.get_mut(&id).unwrap().mode = *mode;
            }
            Op::SetXattr(path, name, mode) => {
                let id = self.find(path)?;
                let xattrs = &mut self.nodes.get_mut(&id).unwrap().xattrs;
                match (mode, xattrs.contains(name)) {
                    (XattrMode::Create, true) => return Err(Refusal::Exists),
                    (XattrMode::Replace, false) => return Err(Refusal::NoAttribute),
                    (_, true) => {}
                    (_, false) => xattrs.push(*name),
                }
                xattrs.sort();
            }
            Op::RemoveXattr(path, name) => {
                let id = self.find(path)?;
                let xattrs = &mut self.nodes.get_mut(&id).unwrap().xattrs;
                let at = xattrs.iter().position(|x| x == name).ok_or(Refusal::NoAttribute)?;
                xattrs.remove(at);
            }
        }
        self.collect();
        Ok(())
    }

    fn rename(&mut self, from: &[u8], to: &[u8], mode: RenameMode) -> Outcome {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        let source = self.find(from)?;
        let target = self.nodes[&to_parent].children.get(&to_name).copied();
        let directory = |tree: &Self, id: u32| tree.nodes[&id].kind == FileKind::Directory;
        if directory(self, source) && self.is_below(to_parent, source) {
            return Err(Refusal::Invalid);
        }
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Refusal::Exists),
            (RenameMode::Exchange, None) => return Err(Refusal::NotFound),
            (_, Some(target)) if target == source => return Ok(()),
            (RenameMode::Exchange, Some(target)) => {
                if directory(self, target) && self.is_below(from_parent, target) {
                    return Err(Refusal::Invalid);
                }
                self.nodes.get_mut(&from_parent).unwrap().children.insert(from_name, target);
                self.nodes.get_mut(&to_parent).unwrap().children.insert(to_name, source);
                return Ok(());
            }
            (_, Some(target)) => match (directory(self, source), directory(self, target)) {
                (true, false) => return Err(Refusal::NotDirectory),
                (false, true) => return Err(Refusal::IsDirectory),
                (true, true) if !self.nodes[&target].children.is_empty() => return Err(Refusal::NotEmpty),
                _ => {}
            },
            (_, None) => {}
        }
        self.nodes.get_mut(&from_parent).unwrap().children.remove(&from_name);
        self.nodes.get_mut(&to_parent).unwrap().children.insert(to_name, source);
        Ok(())
    }
}

fn name(byte: u8) -> Name {
    Name::new(&[b'a' + byte]).unwrap()
}

fn find(tree: &Tree, path: &[u8]) -> Result<Ino, Refusal> {
    let names: Vec<Name> = path.iter().map(|byte| name(*byte)).collect();
    match lookup::walk(&tree.view(), &names).map_err(|error| error.refusal())?.1 {
        Entry::Inode { ino, .. } => Ok(ino),
        Entry::Injected { .. } => panic!("nothing is injected here"),
    }
}

fn parent(tree: &Tree, path: &[u8]) -> Result<(Ino, Name), Refusal> {
    let (last, parents) = path.split_last().unwrap();
    let directory = find(tree, parents)?;
    match lookup::inode(&tree.view(), directory).unwrap().kind {
        FileKind::Directory => Ok((directory, name(*last))),
        _ => Err(Refusal::NotDirectory),
    }
}

fn apply(tree: &Tree, op: &Op) -> Outcome {
    const CALLER: Caller = Caller { uid: 1000, gid: 1000 };
    let unused = |_| false;
    let done = match op {
        Op::Make(path, kind) => {
            let (at, name) = parent(tree, path)?;
            let what = match kind {
                FileKind::Directory => Make::Directory,
                FileKind::Symlink => Make::Symlink(b"target".to_vec()),
                FileKind::Fifo => Make::Fifo,
                _ => Make::File,
            };
            tree.write(|txn| {
                create::create(txn, at, &name, CALLER, NewMode::exactly(0o644), &what, false).map(drop)
            })
        }
        Op::Link(from, to) => {
            let ino = find(tree, from)?;
            if lookup::inode(&tree.view(), ino).unwrap().kind == FileKind::Directory {
                return Err(Refusal::NotPermitted);
            }
            let (at, name) = parent(tree, to)?;
            tree.write(|txn| link::link(txn, ino, at, &name).map(drop))
        }
        Op::Unlink(path) => {
            let (at, name) = parent(tree, path)?;
            tree.write(|txn| remove::unlink(txn, at, &name, &unused).map(drop))
        }
        Op::Rmdir(path) => {
            let (at, name) = parent(tree, path)?;
            tree.write(|txn| remove::rmdir(txn, at, &name).map(drop))
        }
        Op::Rename(from, to, mode) => {
            let ((from, from_name), (to, to_name)) = (parent(tree, from)?, parent(tree, to)?);
            let (from, to) = (Place { parent: from, name: &from_name }, Place { parent: to, name: &to_name });
            tree.write(|txn| rename::rename(txn, from, to, *mode, &unused).map(drop))
        }
        Op::Resize(path, size) => {
            let ino = find(tree, path)?;
            let change = AttrChange { size: Some(*size), ..AttrChange::default() };
            tree.write(|txn| attr::setattr(txn, ino, &change).map(drop))
        }
        Op::Chmod(path, mode) => {
            let ino = find(tree, path)?;
            let change = AttrChange { mode: Some(*mode), ..AttrChange::default() };
            tree.write(|txn| attr::setattr(txn, ino, &change).map(drop))
        }
        Op::SetXattr(path, attribute, mode) => {
            let ino = find(tree, path)?;
            tree.write(|txn| {
                xattr::set(txn, ino, CALLER, &attribute_name(*attribute), b"value", *mode).map(drop)
            })
        }
        Op::RemoveXattr(path, attribute) => {
            let ino = find(tree, path)?;
            tree.write(|txn| xattr::remove(txn, ino, &attribute_name(*attribute)).map(drop))
        }
    };
    done.map_err(|error| error.refusal())
}

fn attribute_name(number: u8) -> Vec<u8> {
    [b"user.", &[b'a' + number][..]].concat()
}

fn compare(tree: &Tree, ino: Ino, reference: &Reference, id: u32) {
    let inode = lookup::inode(&tree.view(), ino).unwrap();
    let node = &reference.nodes[&id];
    assert_eq!(inode.kind, node.kind);
    assert_eq!(
        xattr::list(&tree.view(), ino).unwrap().len(),
        node.xattrs.len() * (attribute_name(0).len() + 1)
    );
    match node.kind {
        FileKind::Directory => {
            let mut listed = Vec::new();
            let end = list::list(&tree.view(), ino, 0, &mut |entry| {
                listed.push((entry.name, entry.entry));
                Ok(true)
            });
            assert!(end.unwrap());
            assert_eq!(listed.len(), node.children.len());
            for (listed_name, entry) in listed {
                let child = node.children[&(listed_name.as_bytes()[0] - b'a')];
                let Entry::Inode { ino, kind } = entry else { panic!("nothing is injected here") };
                assert_eq!(kind, reference.nodes[&child].kind);
                compare(tree, ino, reference, child);
            }
        }
        FileKind::File => assert_eq!((inode.size, inode.nlink as usize), (node.size, reference.names(id))),
        _ => assert_eq!(inode.nlink as usize, reference.names(id)),
    }
    if id != 0 && node.kind == FileKind::File {
        assert_eq!(inode.mode, node.mode);
    }
}

fn new_tree() -> Tree {
    let shard = Arc::new(Shard::new(ShardId(0), Arc::new(MemoryEngine::new()), 64));
    let map = AddressMap::new(vec![shard], Arc::new(ManualClock::default()));
    let tree = map.route(TenantId(7), ShardId(0)).unwrap();
    let new = NewTenant { pool: PoolId(1), quota: QUOTA, uid: 0, gid: 0, mode: 0o755, name_key: 42 };
    tree.write(|txn| tenant::ensure(txn, &new)).unwrap();
    tree
}

fn paths() -> impl Strategy<Value = Path> {
    prop::collection::vec(0..3u8, 1..4)
}

fn ops() -> impl Strategy<Value = Op> {
    use FileKind::{Directory, Fifo, File, Symlink};
    let kind = prop_oneof![3 => Just(File), 4 => Just(Directory), 1 => Just(Symlink), 1 => Just(Fifo)];
    let rename_mode = prop_oneof![
        3 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange)
    ];
    let xattr_mode = prop_oneof![Just(XattrMode::Set), Just(XattrMode::Create), Just(XattrMode::Replace)];
    prop_oneof![
        8 => (paths(), kind).prop_map(|(path, kind)| Op::Make(path, kind)),
        3 => (paths(), paths()).prop_map(|(from, to)| Op::Link(from, to)),
        2 => paths().prop_map(Op::Unlink),
        2 => paths().prop_map(Op::Rmdir),
        5 => (paths(), paths(), rename_mode).prop_map(|(from, to, mode)| Op::Rename(from, to, mode)),
        2 => (paths(), 0..1500u64).prop_map(|(path, size)| Op::Resize(path, size)),
        1 => (paths(), 0..0o7777u32).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => (paths(), 0..3u8, xattr_mode).prop_map(|(path, name, mode)| Op::SetXattr(path, name, mode)),
        1 => (paths(), 0..3u8).prop_map(|(path, name)| Op::RemoveXattr(path, name)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn histories_agree_with_the_reference(history in prop::collection::vec(ops(), 1..120)) {
        let tree = new_tree();
        let mut reference = Reference::new();
        for op in &history {
            prop_assert_eq!(apply(&tree, op), reference.apply(op), "{:?}", op);
        }
        compare(&tree, Ino::ROOT, &reference, 0);
        let report = address_map::check::check(&tree.view()).unwrap();
        prop_assert!(report.is_clean(), "{:?}", report.problems);
        let usage = tree.view().tenant_record().unwrap().usage;
        prop_assert_eq!((usage.bytes, usage.inodes), (reference.bytes(), reference.nodes.len() as u64));
    }
}

#[test]
fn an_open_file_outlives_its_last_name_and_goes_with_its_last_user() {
    let tree = new_tree();
    assert_eq!(apply(&tree, &Op::Make(vec![0], FileKind::File)), Ok(()));
    let ino = find(&tree, &[0]).unwrap();
    let removed = tree.write(|txn| remove::unlink(txn, Ino::ROOT, &name(0), &|_| true)).unwrap();
    assert_eq!((removed.ino, removed.inode.nlink), (ino, 0));
    assert_eq!(find(&tree, &[0]), Err(Refusal::NotFound));
    assert_eq!(object::orphans(&tree.view()).unwrap(), [ino]);
    assert!(address_map::check::check(&tree.view()).unwrap().is_clean());
    assert!(tree.write(|txn| object::purge_orphan(txn, ino)).unwrap().is_some());
    assert!(lookup::inode(&tree.view(), ino).is_err());
    assert_eq!(object::garbage(&tree.view(), LATER, None, 10).unwrap().objects.len(), 1);
    assert!(address_map::check::check(&tree.view()).unwrap().is_clean());
}

#[test]
fn positions_in_a_directory_stay_valid_while_names_come_and_go() {
    let tree = new_tree();
    for byte in 0..20 {
        assert_eq!(apply(&tree, &Op::Make(vec![byte], FileKind::Fifo)), Ok(()));
    }
    let page = |after: u64, most: usize| {
        let mut listed = Vec::new();
        let end = list::list(&tree.view(), Ino::ROOT, after, &mut |entry| {
            listed.push((entry.cookie, entry.name));
            Ok(listed.len() < most)
        });
        (listed, end.unwrap())
    };
    let (first, end) = page(0, 7);
    assert!(first.len() == 7 && !end);
    let seen = |byte: u8| first.iter().any(|(_, listed)| *listed == name(byte));
    let (gone, kept): (Vec<u8>, Vec<u8>) =
        (0..20).filter(|byte| !seen(*byte)).partition(|byte| byte % 2 == 0);
    gone.iter().for_each(|byte| assert_eq!(apply(&tree, &Op::Unlink(vec![*byte])), Ok(())));
    assert_eq!(apply(&tree, &Op::Unlink(vec![first[6].1.as_bytes()[0] - b'a'])), Ok(()));
    let (rest, end) = page(first[6].0, 100);
    assert!(end);
    let mut rest: Vec<Name> = rest.into_iter().map(|(_, name)| name).collect();
    rest.sort();
    assert_eq!(rest, kept.into_iter().map(name).collect::<Vec<_>>());
}

//! A load that changes a small tree in every way, and knows what must be in it: a change that was lost or made twice
//! is an error at once, or a difference at the next look.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, XattrFlags, removexattr, renameat_with, setxattr};

use super::Stop;
use crate::fixture::Random;

/// Most names in the tree.
const NAMES_MAX: usize = 60;
/// Changes between two looks at the whole tree.
const LOOK_EVERY: u64 = 400;
/// The directories that names are in.
const DIRS: [&str; 2] = ["one", "two"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    Symlink(String),
    /// A file with its number; the same number is the same file.
    File(u64),
}

/// Changes the tree in `dir`, which is made, until it is told to stop. Nobody else may change it. Answers how many
/// changes were made.
pub fn tree_changes(dir: &Path, seed: u64, stop: &Stop) -> u64 {
    for name in DIRS {
        fs::create_dir_all(dir.join(name)).expect("make a directory");
    }
    let mut model = Model { dir: dir.to_owned(), random: Random::new(seed), names: BTreeMap::new(), next: 0 };
    let mut changes = 0;
    while !stop.is_set() {
        model.change();
        changes += 1;
        if changes % LOOK_EVERY == 0 {
            model.look();
        }
    }
    model.look();
    changes
}

struct Model {
    dir: PathBuf,
    random: Random,
    names: BTreeMap<String, Node>,
    next: u64,
}

impl Model {
    fn change(&mut self) {
        let pick = if self.names.len() >= NAMES_MAX { 9 } else { self.random.below(13) };
        match pick {
            0 | 1 => self.create(),
            2 => self.make("make a directory", Node::Directory, |path| fs::create_dir(path)),
            3 => {
                let target = format!("to {}", self.next);
                self.make("make a symbolic link", Node::Symlink(target.clone()), |path| {
                    symlink(&target, path)
                });
            }
            4 => self.link(),
            5 | 6 => self.rename(),
            7 => self.replace(),
            8 => self.exchange(),
            12 => self.attribute(),
            _ => self.remove(),
        }
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("{}/{}", DIRS[self.random.below(2) as usize], self.next)
    }

    /// A name for which `fits` holds.
    fn any(&mut self, fits: impl Fn(&Node) -> bool) -> Option<(String, Node)> {
        let fitting: Vec<_> = self.names.iter().filter(|(_, node)| fits(node)).collect();
        let index = self.random.below(fitting.len().max(1) as u64) as usize;
        fitting.get(index).map(|(name, node)| ((*name).clone(), (*node).clone()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn make(&mut self, what: &str, node: Node, make: impl FnOnce(&Path) -> std::io::Result<()>) {
        let name = self.fresh();
        make(&self.path(&name)).unwrap_or_else(|e| panic!("{what} {name}: {e}"));
        self.names.insert(name, node);
    }

    fn create(&mut self) {
        let number = self.next + 1;
        self.make("create", Node::File(number), |path| {
            OpenOptions::new().write(true).create_new(true).open(path)?.write_all(&contents(number))
        });
    }

    fn link(&mut self) {
        let Some((old, node)) = self.any(|node| matches!(node, Node::File(_))) else { return };
        let old = self.path(&old);
        self.make("link", node, |path| fs::hard_link(old, path));
    }

    fn rename(&mut self) {
        let Some((old, node)) = self.any(|_| true) else { return };
        let from = self.path(&old);
        self.make("rename to", node, |path| fs::rename(from, path));
        self.names.remove(&old);
    }

    fn replace(&mut self) {
        let Some((from, node)) = self.any(|_| true) else { return };
        let directory = node == Node::Directory;
        // A rename between two names of one file does nothing, as POSIX says.
        let fits = |other: &Node| (*other == Node::Directory) == directory && (directory || *other != node);
        let Some((to, _)) = self.any(fits).filter(|(to, _)| *to != from) else { return };
        fs::rename(self.path(&from), self.path(&to))
            .unwrap_or_else(|e| panic!("rename {from} over {to}: {e}"));
        self.names.remove(&from);
        self.names.insert(to, node);
    }

    fn exchange(&mut self) {
        let (Some((a, of_a)), Some((b, of_b))) = (self.any(|_| true), self.any(|_| true)) else { return };
        renameat_with(CWD, self.path(&a), CWD, self.path(&b), RenameFlags::EXCHANGE)
            .unwrap_or_else(|e| panic!("exchange {a} and {b}: {e}"));
        self.names.insert(a, of_b);
        self.names.insert(b, of_a);
    }

    fn attribute(&mut self) {
        let Some((name, _)) = self.any(|node| matches!(node, Node::File(_) | Node::Directory)) else {
            return;
        };
        let path = self.path(&name);
        setxattr(&path, "user.once", b"v", XattrFlags::CREATE)
            .unwrap_or_else(|e| panic!("make an attribute of {name}: {e}"));
        removexattr(&path, "user.once").unwrap_or_else(|e| panic!("remove an attribute of {name}: {e}"));
    }

    fn remove(&mut self) {
        let Some((name, node)) = self.any(|_| true) else { return };
        let path = self.path(&name);
        let removed = if node == Node::Directory { fs::remove_dir(path) } else { fs::remove_file(path) };
        removed.unwrap_or_else(|e| panic!("remove {name}: {e}"));
        self.names.remove(&name);
    }

    /// Compares the tree with what must be in it.
    fn look(&self) {
        let mut found = BTreeMap::new();
        for dir in DIRS {
            for entry in fs::read_dir(self.path(dir)).expect("list a directory") {
                let name =
                    entry.expect("list a directory").file_name().into_string().expect("names are text");
                let name = format!("{dir}/{name}");
                let node = self.node_at(&name);
                assert!(found.insert(name.clone(), node).is_none(), "{name} is listed twice");
            }
        }
        assert_eq!(found, self.names, "left: what is there, right: what must be there");
        let mut links = HashMap::new();
        self.names.values().for_each(|node| *links.entry(format!("{node:?}")).or_insert(0) += 1);
        for (name, node) in self.names.iter().filter(|(_, node)| matches!(node, Node::File(_))) {
            let metadata = fs::symlink_metadata(self.path(name)).expect("look at a file");
            assert_eq!(metadata.nlink(), links[&format!("{node:?}")], "names of {name}");
        }
    }

    fn node_at(&self, name: &str) -> Node {
        let path = self.path(name);
        let kind = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("look at {name}: {e}")).file_type();
        if kind.is_dir() {
            assert_eq!(fs::read_dir(&path).expect("list a directory").count(), 0, "{name} is empty");
            Node::Directory
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap_or_else(|e| panic!("read the link {name}: {e}"));
            Node::Symlink(target.to_string_lossy().into_owned())
        } else {
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("read {name}: {e}"));
            let number = bytes.first_chunk().map(|number| u64::from_le_bytes(*number)).unwrap_or_default();
            assert!(bytes == contents(number), "{name} holds {} wrong bytes", bytes.len());
            Node::File(number)
        }
    }
}

/// What is in the file with this number: the number, and some more.
fn contents(number: u64) -> Vec<u8> {
    [&number.to_le_bytes()[..], &Random::new(number).bytes(number as usize % 6000)].concat()
}

//! Everything that can be seen of a tree, in a form that can be compared.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A tree as it was seen: what is found under each path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    nlink: u64,
    size: u64,
    mtime: (i64, i64),
    rdev: u64,
    /// The first path that leads to the same inode: equal for all hard links.
    same_as: PathBuf,
    /// Hash of a file's bytes or a link's target.
    content: u64,
}

impl Snapshot {
    /// Number of names in the tree.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the tree has no names.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Fails the test, naming the first differences, unless `other` looks the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Snapshot) {
        let names =
            self.entries.keys().chain(other.entries.keys().filter(|name| !self.entries.contains_key(*name)));
        let different: Vec<String> = names
            .filter(|name| self.entries.get(*name) != other.entries.get(*name))
            .take(5)
            .map(|name| {
                format!(
                    "{}\n   {:?}\n   {:?}",
                    name.display(),
                    self.entries.get(name),
                    other.entries.get(name)
                )
            })
            .collect();
        assert!(different.is_empty(), "the trees differ:\n{}", different.join("\n"));
    }
}

/// Reads the whole tree below `root`, without `root` itself.
#[track_caller]
pub fn snapshot(root: &Path) -> Snapshot {
    let mut taken = Snapshot::default();
    let mut first_names = HashMap::new();
    let mut dirs = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display())) {
            let entry = entry.unwrap_or_else(|e| panic!("list {}: {e}", dir.display()));
            if entry.file_type().expect("an entry has a type").is_dir() {
                dirs.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    for path in paths {
        let name = path.strip_prefix(root).expect("entries are below the root").to_owned();
        let seen = look(&path, &name, &mut first_names);
        taken.entries.insert(name, seen);
    }
    taken
}

fn look(path: &Path, name: &Path, first_names: &mut HashMap<u64, PathBuf>) -> Seen {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("stat {}: {e}", path.display()));
    let kind = metadata.file_type();
    let mut hasher = DefaultHasher::new();
    if kind.is_file() {
        fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())).hash(&mut hasher);
    } else if kind.is_symlink() {
        fs::read_link(path).unwrap_or_else(|e| panic!("readlink {}: {e}", path.display())).hash(&mut hasher);
    }
    Seen {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        nlink: metadata.nlink(),
        // What a directory's size means differs between file systems.
        size: if kind.is_dir() { 0 } else { metadata.size() },
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        rdev: metadata.rdev(),
        same_as: first_names.entry(metadata.ino()).or_insert_with(|| name.to_owned()).clone(),
        content: hasher.finish(),
    }
}

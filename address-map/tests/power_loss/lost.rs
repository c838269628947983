//! A store as it is when the power goes, and what of it is on the disk afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use address_map::attr::{Caller, NewMode};
use address_map::clock::ManualClock;
use address_map::engine::{Committer, FjallOptions, FjallStore};
use address_map::ids::{Ino, PoolId, ShardId, TenantId};
use address_map::map::{AddressMap, Tree};
use address_map::name::Name;
use address_map::namespace::rename::Place;
use address_map::namespace::tenant::NewTenant;
use address_map::namespace::{create, list, lookup, remove, rename, tenant, xattr};
use address_map::record::{Entry, Quota};
use address_map::shard::Shard;
use address_map::wire::{Make, RenameMode, XattrMode};
use tempfile::TempDir;

/// Changes made before the last sync.
const SYNCED: usize = 30;
/// Changes made after it.
const UNSYNCED: usize = 24;
/// Bytes that a disk writes together.
pub(crate) const PAGE: u64 = 4096;
const TENANT: TenantId = TenantId(7);
const CALLER: Caller = Caller { uid: 1000, gid: 1000 };

/// The names in the root, and how many bytes of attribute names each has.
type Names = BTreeMap<String, usize>;

struct Opened {
    tree: Tree,
    committer: Committer,
}

fn open(path: &Path) -> address_map::Result<Opened> {
    let store = FjallStore::open(path, FjallOptions { worker_threads: 1, ..FjallOptions::default() })?;
    let engine = Arc::new(store.engine("shard-0")?);
    let committer = Committer::new(engine.clone());
    let shard = Arc::new(Shard::new(ShardId(0), engine, 64));
    let tree = AddressMap::new(vec![shard], Arc::new(ManualClock::default())).route(TENANT, ShardId(0))?;
    Ok(Opened { tree, committer })
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// How much one commit may hold.
#[derive(Clone, Copy)]
pub(crate) enum Commits {
    /// Less than a page.
    Small,
    /// Several pages.
    Large,
}

/// Makes the change with this number, in one commit; `names` follows.
fn change(tree: &Tree, number: usize, commits: Commits, names: &mut Names) {
    let fresh = format!("n{number}");
    let old = names.first_key_value().map(|(name, attributes)| (name.clone(), *attributes));
    match (number % 6, old) {
        (2, Some((old, attributes))) => {
            let (from, to) = (name(&old), name(&fresh));
            let (from, to) =
                (Place { parent: Ino::ROOT, name: &from }, Place { parent: Ino::ROOT, name: &to });
            tree.write(|txn| rename::rename(txn, from, to, RenameMode::Replace, &|_| false)).unwrap();
            names.remove(&old);
            names.insert(fresh, attributes);
        }
        (3, Some((old, _))) => {
            tree.write(|txn| remove::unlink(txn, Ino::ROOT, &name(&old), &|_| false)).unwrap();
            names.remove(&old);
        }
        (4, Some((old, attributes))) => {
            let value = match commits {
                Commits::Small => vec![b'v'; number],
                // Some are zeros, as a page that was never written is.
                Commits::Large if number > SYNCED && number % 12 == 4 => {
                    vec![0; 3_000 + number * 977 % 20_000]
                }
                Commits::Large => vec![b'v'; 3_000 + number * 977 % 20_000],
            };
            let ino = ino_of(tree, &old);
            let attribute = format!("user.{fresh}");
            let create = XattrMode::Create;
            tree.write(|txn| xattr::set(txn, ino, CALLER, attribute.as_bytes(), &value, create)).unwrap();
            names.insert(old, attributes + attribute.len() + 1);
        }
        _ => {
            // Commits that lie across pages.
            let make = Make::Symlink(vec![b'x'; 700 + number * 37 % 900]);
            tree.write(|txn| {
                create::create(txn, Ino::ROOT, &name(&fresh), CALLER, NewMode::exactly(0o644), &make, false)
            })
            .unwrap();
            names.insert(fresh, 0);
        }
    }
}

fn ino_of(tree: &Tree, path: &str) -> Ino {
    match lookup::walk(&tree.view(), &[name(path)]).unwrap().1 {
        Entry::Inode { ino, .. } => ino,
        Entry::Injected { .. } => panic!("nothing is injected here"),
    }
}

fn names_in(tree: &Tree) -> Names {
    let mut names = Names::new();
    let all = list::list(&tree.view(), Ino::ROOT, 0, &mut |entry| {
        let name = String::from_utf8(entry.name.as_bytes().to_vec()).unwrap();
        let attributes = xattr::list(&tree.view(), ino_of(tree, &name))?.len();
        names.insert(name, attributes);
        Ok(true)
    });
    assert!(all.unwrap());
    names
}

/// A store as it was when the power went.
pub(crate) struct Lost {
    directory: TempDir,
    /// The journal, relative to the store.
    journal: PathBuf,
    /// What had been written to it.
    pub(crate) bytes: Vec<u8>,
    /// Its length with what is preallocated.
    pub(crate) length: u64,
    /// What was there after each change, from the last sync on, and where the journal ended then.
    states: Vec<(u64, Names)>,
}

impl Lost {
    pub(crate) fn new(commits: Commits) -> Self {
        let directory = TempDir::new().unwrap();
        let store = directory.path().join("store");
        let opened = open(&store).unwrap();
        let quota = Quota { bytes: None, inodes: None };
        let new = NewTenant { pool: PoolId(1), quota, uid: 0, gid: 0, mode: 0o755, name_key: 42 };
        opened.tree.write(|txn| tenant::ensure(txn, &new)).unwrap();
        let mut names = Names::new();
        (0..SYNCED).for_each(|number| change(&opened.tree, number, commits, &mut names));
        opened.committer.wait_durable().unwrap();
        let journal = journal_of(&store);
        let mut states = vec![(written_end(&store.join(&journal), 0), names.clone())];
        for number in SYNCED..SYNCED + UNSYNCED {
            change(&opened.tree, number, commits, &mut names);
            let end = written_end(&store.join(&journal), states.last().unwrap().0);
            states.push((end, names.clone()));
        }
        let file = File::open(store.join(&journal)).unwrap();
        let mut bytes = vec![0; states.last().unwrap().0 as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let length = file.metadata().unwrap().len();
        // The store is still open, as it is when the power goes.
        let lost = directory.path().join("lost");
        copy(&store, &lost, &store.join(&journal));
        Self { directory, journal, bytes, length, states }
    }

    /// Where the journal ended when it was synced.
    pub(crate) fn synced_end(&self) -> u64 {
        self.states[0].0
    }

    /// Where the journal ended after each change, from the last sync on.
    pub(crate) fn ends(&self) -> Vec<u64> {
        self.states.iter().map(|(end, _)| *end).collect()
    }

    /// The last change that is whole in these bytes of a journal, counted from the sync.
    pub(crate) fn last_whole(&self, left: &[u8]) -> usize {
        let byte = |at: usize| left.get(at).copied().unwrap_or_default();
        let same = (0..self.bytes.len()).take_while(|at| byte(*at) == self.bytes[*at]).count() as u64;
        self.states.iter().rposition(|(end, _)| *end <= same).unwrap()
    }

    /// Opens what is left when the journal holds `bytes` and is `length` long, and answers which change was the last
    /// that is there, counted from the sync.
    pub(crate) fn reopen(&self, bytes: &[u8], length: u64) -> Result<usize, String> {
        self.leave(bytes, length);
        let opened = open(&self.left()).map_err(|error| format!("it does not open: {error:?}"))?;
        let report = address_map::check::check(&opened.tree.view()).map_err(|error| format!("{error:?}"))?;
        if !report.is_clean() {
            return Err(format!("problems: {:?}", report.problems));
        }
        let names = names_in(&opened.tree);
        let found = self.states.iter().rposition(|(_, state)| *state == names);
        let found = found.ok_or_else(|| format!("a tree that never was: {names:?}"))?;
        // It goes on from there.
        change(&opened.tree, 4_000, Commits::Large, &mut names.clone());
        opened.committer.wait_durable().map_err(|error| format!("{error:?}"))?;
        Ok(found)
    }

    /// Puts what is left of the store where [`Lost::left`] says.
    pub(crate) fn leave(&self, bytes: &[u8], length: u64) {
        let path = self.left();
        let _ = fs::remove_dir_all(&path);
        copy(&self.directory.path().join("lost"), &path, Path::new("nothing"));
        let journal = File::create_new(path.join(&self.journal)).unwrap();
        journal.write_all_at(bytes, 0).unwrap();
        journal.set_len(length).unwrap();
    }

    /// The store that is left.
    pub(crate) fn left(&self) -> PathBuf {
        self.directory.path().join("left")
    }

    /// Opens it as it is.
    pub(crate) fn open_left(&self) -> address_map::Result<()> {
        open(&self.left()).map(|_| ())
    }

    /// Its journal.
    pub(crate) fn journal_left(&self) -> PathBuf {
        self.left().join(&self.journal)
    }
}

/// The only journal of a store.
fn journal_of(store: &Path) -> PathBuf {
    let mut found = fs::read_dir(store.join("fjall"))
        .unwrap()
        .map(|entry| Path::new("fjall").join(entry.unwrap().file_name()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    let journal = found.next().unwrap();
    assert!(found.next().is_none(), "this much fits into one journal");
    journal
}

/// Where what was written ends: what is preallocated behind it is zeros, and no commit ends in one.
fn written_end(journal: &Path, known: u64) -> u64 {
    let file = File::open(journal).unwrap();
    let (mut end, mut at, mut chunk) = (known, known, vec![0; 64 << 10]);
    loop {
        let read = file.read_at(&mut chunk, at).unwrap();
        match chunk[..read].iter().rposition(|byte| *byte != 0) {
            Some(last) => end = at + last as u64 + 1,
            None => return end,
        }
        at += read as u64;
    }
}

/// Copies a directory, but for one file.
fn copy(from: &Path, to: &Path, but: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, but);
        } else if path != but {
            fs::copy(&path, &target).unwrap();
        }
    }
}

//! Promise: the mounts of an owner and of its grantees show one tree. What is promised to be seen is seen by the next
//! call, whichever side has made the change and whatever the kernels of the sides have kept.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::fs::{CWD, RenameFlags, XattrFlags, getxattr, renameat_with, setxattr};
use rustix::io::Errno;
use tests::{Random, World};

use crate::help::{assert_errno, names, python, world};

/// Random changes per seed.
const STEPS: usize = 200;
/// Names that files and directories have.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "d/a", "d/b"];

/// Alice shares `/s` with bob and carol, who may write. Gives the directory as each of them sees it.
fn sides(world: &World) -> Vec<PathBuf> {
    let alice = world.mounted("alice");
    fs::create_dir(alice.join("s")).unwrap();
    let mut sides = vec![alice.join("s")];
    for grantee in ["bob", "carol"] {
        sides.push(world.mounted(grantee).join("s"));
        world.ctl(&["share", "grant", "alice:/s", &format!("{grantee}:/s"), "--rw"]);
    }
    sides
}

/// A file as it should be. Its names are the keys that lead to it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    bytes: Vec<u8>,
    mode: u32,
    attribute: Option<Vec<u8>>,
}

/// The tree as it should be: names to files, files by number; `d` is always there and a directory.
#[derive(Default)]
struct Tree {
    names: BTreeMap<&'static str, usize>,
    files: Vec<Model>,
    /// Handles that stay open, one per side and file, for reading and writing.
    open: BTreeMap<(usize, usize), File>,
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}

/// One change by one side, on the file system and in the model.
fn change(tree: &mut Tree, side: usize, root: &Path, random: &mut Random) -> String {
    let name = *pick(random, &NAMES.iter().copied().filter(|name| *name != "d").collect::<Vec<_>>());
    let other = *pick(random, &NAMES.iter().copied().filter(|name| *name != "d").collect::<Vec<_>>());
    let path = root.join(name);
    let Some(&file) = tree.names.get(name) else {
        let bytes = random.bytes(1 + random.clone().below(20_000) as usize);
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        tree.names.insert(name, tree.files.len());
        tree.files.push(Model { bytes, mode: 0o644, attribute: None });
        return format!("made {name}");
    };
    let model = &mut tree.files[file];
    match random.below(10) {
        0 => {
            fs::remove_file(&path).unwrap();
            tree.names.remove(name);
            format!("removed {name}")
        }
        1 => {
            fs::rename(&path, root.join(other)).unwrap();
            let same = tree.names.get(other) == Some(&file);
            if !same {
                tree.names.remove(name);
                tree.names.insert(other, file);
            }
            format!("renamed {name} to {other}")
        }
        2 if tree.names.contains_key(other) => {
            renameat_with(CWD, &path, CWD, root.join(other), RenameFlags::EXCHANGE).unwrap();
            let theirs = tree.names.insert(other, file).unwrap();
            tree.names.insert(name, theirs);
            format!("exchanged {name} and {other}")
        }
        2 => {
            fs::hard_link(&path, root.join(other)).unwrap();
            tree.names.insert(other, file);
            format!("linked {name} to {other}")
        }
        3 => {
            model.mode = *pick(random, &[0o600, 0o644, 0o755, 0o1664]);
            fs::set_permissions(&path, Permissions::from_mode(model.mode)).unwrap();
            format!("chmod {name}")
        }
        4 => {
            let value = random.bytes(10);
            setxattr(&path, "user.k", &value, XattrFlags::empty()).unwrap();
            model.attribute = Some(value);
            format!("attribute of {name}")
        }
        5 => {
            let size = random.below(25_000) as usize;
            OpenOptions::new().write(true).open(&path).unwrap().set_len(size as u64).unwrap();
            model.bytes.resize(size, 0);
            format!("cut {name} to {size}")
        }
        choice => {
            // Through a handle that stays open, or through one of its own.
            let at = random.below(15_000) as usize;
            let count = 1 + random.below(9_000) as usize;
            let bytes = random.bytes(count);
            let end = at + bytes.len();
            model.bytes.resize(model.bytes.len().max(end), 0);
            model.bytes[at..end].copy_from_slice(&bytes);
            let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
            if choice < 8 {
                let handle = tree.open.entry((side, file)).or_insert_with(open);
                handle.write_all_at(&bytes, at as u64).unwrap();
                format!("wrote {name} at {at} through an open handle")
            } else {
                open().write_all_at(&bytes, at as u64).unwrap();
                format!("wrote {name} at {at} and closed")
            }
        }
    }
}

/// Everything a side shows is as the model says, also through handles that stay open.
fn compare(tree: &Tree, side: usize, root: &Path, done: &str) {
    let said = |what: &str| format!("side {side}, after {done}: {what}");
    for (dir, prefix) in [("", ""), ("d", "d/")] {
        let inside = |name: &&str| name.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/'));
        let mut expected: Vec<&str> =
            tree.names.keys().copied().filter(inside).map(|name| &name[prefix.len()..]).collect();
        if dir.is_empty() {
            expected.push("d");
        }
        expected.sort_unstable();
        assert_eq!(names(&root.join(dir)), expected, "{}", said("the listing"));
    }
    for name in NAMES.iter().filter(|name| **name != "d") {
        let path = root.join(name);
        let Some(&file) = tree.names.get(name) else {
            assert_errno(fs::symlink_metadata(&path), Errno::NOENT);
            continue;
        };
        let model = &tree.files[file];
        let seen = fs::metadata(&path).unwrap();
        let links = tree.names.values().filter(|other| **other == file).count();
        assert_eq!(
            (seen.len(), seen.mode() & 0o7777, seen.nlink()),
            (model.bytes.len() as u64, model.mode, links as u64),
            "{}",
            said(name)
        );
        let mut value = [0; 32];
        let attribute = getxattr(&path, "user.k", &mut value[..]).map(|count| value[..count].to_vec());
        assert_eq!(attribute.ok(), model.attribute, "{}", said(name));
        assert!(fs::read(&path).unwrap() == model.bytes, "{}", said(&format!("the bytes of {name}")));
    }
    for ((_, file), handle) in tree.open.iter().filter(|((of, _), _)| *of == side) {
        let model = &tree.files[*file];
        assert_eq!(handle.metadata().unwrap().len(), model.bytes.len() as u64, "{}", said("an open handle"));
        let mut bytes = vec![0; model.bytes.len()];
        handle.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == model.bytes, "{}", said("the bytes behind an open handle"));
    }
}

#[test]
fn random_changes_from_all_sides_are_seen_by_the_next_call() {
    let world = world();
    let sides = sides(&world);
    for seed in 1..=2 {
        let mut random = Random::new(seed);
        let mut tree = Tree::default();
        fs::create_dir(sides[0].join("d")).unwrap();
        for _ in 0..STEPS {
            let side = random.below(sides.len() as u64) as usize;
            let done = change(&mut tree, side, &sides[side], &mut random);
            if random.below(8) == 0 {
                tree.open.clear();
            }
            let order = random.below(sides.len() as u64) as usize;
            for turn in 0..sides.len() {
                let looker = (order + turn) % sides.len();
                compare(&tree, looker, &sides[looker], &format!("{done} by side {side} (seed {seed})"));
            }
        }
        drop(tree);
        let leave = *pick(&mut random, &[0, 1, 2]);
        fs::remove_dir_all(sides[leave].join("d")).unwrap();
        names(&sides[leave]).iter().for_each(|name| fs::remove_file(sides[leave].join(name)).unwrap());
        sides.iter().for_each(|side| assert_eq!(names(side), [""; 0]));
    }
    world.ctl(&["check"]);
}

#[test]
fn of_two_sides_that_make_the_same_name_one_succeeds() {
    const COUNT: usize = 100;
    let program = r#"
import os, sys
def tried(make, name):
    try: make(name)
    except FileExistsError: return False
    return True
makes = {
    'file': lambda name: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    'dir': os.mkdir,
    'symlink': lambda name: os.symlink('x', name),
    'link': lambda name: os.link('base', name),
    'pipe': os.mkfifo,
}
print('ready', flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[1])):
    for kind, make in makes.items():
        if tried(make, f'{kind}{n}'): print(f'{kind}{n}')
"#;
    let world = world();
    let sides = sides(&world);
    fs::write(sides[0].join("base"), "").unwrap();
    // Two processes on each side.
    let mut makers: Vec<Child> = sides
        .iter()
        .chain(&sides)
        .map(|side| {
            let mut command = python(side, program);
            command.arg(COUNT.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut said: Vec<_> = makers.iter_mut().map(|m| BufReader::new(m.stdout.take().unwrap())).collect();
    for said in &mut said {
        assert_eq!(said.by_ref().lines().next().unwrap().unwrap(), "ready");
    }
    makers.iter_mut().for_each(|maker| maker.stdin.take().unwrap().write_all(b"go\n").unwrap());
    let mut made: Vec<String> = said.into_iter().flat_map(|said| said.lines().map(Result::unwrap)).collect();
    makers.iter_mut().for_each(|maker| assert!(maker.wait().unwrap().success()));
    made.sort_unstable();
    let mut expected = names(&sides[1]);
    expected.retain(|name| name != "base");
    assert_eq!((made.len(), &made), (5 * COUNT, &expected));
    assert_eq!(fs::metadata(sides[2].join("base")).unwrap().nlink(), 1 + COUNT as u64);
    world.ctl(&["check"]);
}

/// Bytes of the file that is mapped.
const MAPPED: usize = 8 * 4096;

/// A process that has a file mapped, shows what it sees there, and writes.
struct Mapper {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Mapper {
    fn start(path: &Path) -> Self {
        let program = r#"
import mmap, os, sys
readable = os.open(sys.argv[1], os.O_RDONLY)
seen = mmap.mmap(readable, 0, prot=mmap.PROT_READ)
for line in sys.stdin:
    words = line.split()
    if words[0] == 'show': print(seen[:].hex(), flush=True)
    else:
        fd = os.open(sys.argv[1], os.O_RDWR)
        at, bytes = int(words[1]), bytes.fromhex(words[2])
        if words[0] == 'write': os.pwrite(fd, bytes, at)
        else:
            with mmap.mmap(fd, 0) as m:
                m[at:at + len(bytes)] = bytes
                m.flush()
        os.close(fd)
        del bytes
        print('done', flush=True)
"#;
        let mut process = Command::new("python3")
            .args(["-c", program])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.said.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_mapping_shows_what_others_have_closed() {
    let world = world();
    let sides = sides(&world);
    let mut random = Random::new(5);
    let mut model = random.bytes(MAPPED);
    fs::write(sides[0].join("map"), &model).unwrap();
    let mut mappers: Vec<Mapper> = sides.iter().map(|side| Mapper::start(&side.join("map"))).collect();
    for step in 0..200 {
        let side = random.below(sides.len() as u64) as usize;
        let at = random.below(MAPPED as u64 - 6_000) as usize;
        let bytes = random.bytes(1 + random.clone().below(6_000) as usize);
        model[at..at + bytes.len()].copy_from_slice(&bytes);
        let how = *pick(&mut random, &["write", "map"]);
        assert_eq!(mappers[side].ask(&format!("{how} {at} {}", hex(&bytes))), "done");
        let expected = hex(&model);
        for (looker, mapper) in mappers.iter_mut().enumerate() {
            assert!(
                mapper.ask("show") == expected,
                "step {step}: side {looker} does not see in its mapping what side {side} did ({how})"
            );
            assert!(
                fs::read(sides[looker].join("map")).unwrap() == model,
                "step {step}: side {looker} reads"
            );
        }
    }
}

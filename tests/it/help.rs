//! What the modules have in common: worlds of the binaries built with this test, and short ways to say things.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use serde_json::Value;
use tests::{Binaries, Outcome, World, ok, run, wait_until};

/// Bound of waits for things that happen by themselves, and soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The binaries that cargo built with this test.
pub(crate) fn binaries() -> Binaries {
    Binaries {
        controller: env!("CARGO_BIN_EXE_tests-vmds-controller").into(),
        ctl: env!("CARGO_BIN_EXE_tests-vmdsctl").into(),
        vmds: env!("CARGO_BIN_EXE_tests-vmds").into(),
    }
}

/// A world of its own for a test. With `VMDS_TEST_POOL=objects` in the environment its tenants live in an object store, see
/// [`World::start_on_objects`], with `cached` in one that has a disk cache.
#[track_caller]
pub(crate) fn world() -> World {
    match std::env::var("VMDS_TEST_POOL").as_deref() {
        Ok("objects") => World::start_on_objects(binaries()),
        Ok("cached") => World::start_on_cached_objects(binaries(), "64MiB"),
        Ok(other) => panic!("VMDS_TEST_POOL is 'objects', 'cached' or not there, not '{other}'"),
        Err(_) => World::start(binaries()),
    }
}

/// Waits until nothing is being written any more: from then on all is read from the store.
pub(crate) fn await_nothing_staged(world: &World) {
    let empty = || {
        let files = run(Command::new("find").arg(world.state_dir().join("staging")).args(["-type", "f"]));
        files.stdout.is_empty()
    };
    wait_until("nothing is in the staging directory", SOON, empty);
}

/// Checks the same in an empty local directory, in a tenant's tree, and in the tree of a tenant with a quota, whose
/// bytes go another way. The first shows that it is POSIX that is asked for, and not what VMDS happens to do.
pub(crate) fn everywhere(check: impl Fn(&Path)) {
    let world = world();
    let local = world.dir().join("local");
    fs::create_dir(&local).unwrap();
    eprintln!("in a local directory:");
    check(&local);
    eprintln!("in a tenant's tree:");
    check(&world.mounted("plain"));
    eprintln!("in the tree of a tenant with a quota:");
    world.tenant_with("metered", &["--quota-bytes", "64GiB"]);
    check(&world.mount("metered"));
    world.ctl(&["check"]);
}

/// Fails the test unless `result` is this error.
#[track_caller]
pub(crate) fn assert_errno<T>(result: io::Result<T>, errno: Errno) {
    match result {
        Ok(_) => panic!("expected {errno:?}, but it succeeded"),
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "expected {errno:?}: {error}")
        }
    }
}

/// Fails the test if anything is known under `path`: by name, by listing or by opening.
#[track_caller]
pub(crate) fn assert_unknown(path: &Path) {
    assert_errno(fs::symlink_metadata(path), Errno::NOENT);
    assert_errno(fs::File::open(path), Errno::NOENT);
    assert_errno(fs::read_dir(path), Errno::NOENT);
    let parent = path.parent().unwrap();
    if parent.exists() {
        assert!(!names(parent).contains(&path.file_name().unwrap().to_str().unwrap().to_owned()));
    }
}

/// The names in a directory, sorted.
#[track_caller]
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let list = fs::read_dir(dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display()));
    let mut names: Vec<String> =
        list.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Runs a shell command in a directory; it must succeed. Gives what it printed.
#[track_caller]
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    ok(Command::new("sh").arg("-euc").arg(script).current_dir(dir))
}

/// Runs `vmdsctl` as another user: a copy of it, since those who are not root may not see what cargo has built.
#[track_caller]
pub(crate) fn ctl_as(world: &World, uid: u32, args: &[&str]) -> Outcome {
    let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let program = dir.path().join("vmdsctl");
    fs::copy(binaries().ctl, &program).unwrap();
    let as_root = world.ctl_command(args);
    let mut command = Command::new(&program);
    command.args(as_root.get_args()).uid(uid);
    run(&mut command)
}

/// A Python program that works in a directory.
pub(crate) fn python(dir: &Path, program: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-c").arg(program).current_dir(dir);
    command
}

/// A program that has a file of a mount open. A file that the test itself has open is closed once more by each controller
/// that it starts: between `fork` and `exec`, when there is no controller that could answer.
pub(crate) struct Writer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Writer {
    /// Begins: each line that it is sent is an expression of Python, `f` is the open descriptor.
    pub(crate) fn open(path: &Path, flags: &str) -> Self {
        let program = format!(
            "import os, sys\nf = os.open(sys.argv[1], {flags}, 0o644)\nprint('open', flush=True)\n\
             for line in sys.stdin:\n    print(eval(line), flush=True)\n"
        );
        let mut command = python(Path::new("/"), &program);
        command.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut writer = Self { child, orders, answers };
        assert_eq!(writer.hear(), "open");
        writer
    }

    /// Evaluates an expression there.
    pub(crate) fn does(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.hear()
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Ends it; it must have had no error.
    pub(crate) fn end(self) {
        let Self { mut child, orders, mut answers } = self;
        drop(orders);
        let mut rest = String::new();
        answers.read_to_string(&mut rest).unwrap();
        assert!(child.wait().unwrap().success() && rest.is_empty(), "{rest}");
    }

    /// Kills it. It is gone when it has closed what it had open, which somebody has to answer.
    pub(crate) fn kill(mut self) -> Child {
        self.child.kill().unwrap();
        self.child
    }
}

/// The items of a list that `vmdsctl -o json` has printed.
#[track_caller]
pub(crate) fn items(list: Value) -> Vec<Value> {
    match list {
        Value::Object(mut fields) => match fields.remove("items") {
            Some(Value::Array(items)) => items,
            _ => panic!("a list has items, this has {fields:?}"),
        },
        Value::Array(items) => items,
        other => panic!("not a list: {other}"),
    }
}

/// Everything that is wanted of the controller: kind, name and spec of all resources.
#[track_caller]
pub(crate) fn wanted(world: &World) -> Vec<(String, Value, Value)> {
    let kinds = ["pools", "tenants", "shares", "mounts"];
    let of_kind = |kind: &str| {
        let items = items(world.ctl_json(&["get", kind]));
        items
            .into_iter()
            .map(|item| (kind.to_owned(), item["metadata"]["name"].clone(), item["spec"].clone()))
            .collect()
    };
    kinds.map(of_kind).into_iter().flat_map(|list: Vec<_>| list).collect()
}

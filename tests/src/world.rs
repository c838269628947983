//! A controller with directories of its own, and everything that belongs to it.

mod bucket;
mod commands;
mod log;
mod object_store;
mod starter;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::captured::Captured;
use crate::load::full;
use crate::mounts::{detach_all_under, mounts_under};
use crate::process::{Process, children};
use crate::wait::wait_until;
pub use bucket::Bucket;
use object_store::Store;
use starter::Starter;

/// How long a controller may take until it says that it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long a controller may take to end after SIGTERM, and its VMDSes after it.
const END_DEADLINE: Duration = Duration::from_secs(20);
/// After this long, every day and in full, a test is taken for stuck: its mounts are aborted, so that it fails instead of
/// hanging.
const STUCK_AFTER: (Duration, Duration) = (Duration::from_secs(900), Duration::from_secs(4 * 3600));
/// What the controller prints when it is ready.
const READY: &str = "vmds-controller ready";
/// The binaries a world is made of.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `vmds-controller`.
    pub controller: PathBuf,
    /// `vmdsctl`.
    pub ctl: PathBuf,
    /// `vmds`.
    pub vmds: PathBuf,
}

/// A running controller with a temporary directory that holds its state, its socket and all mount points.
///
/// Dropping it ends the controller, unmounts what is left and fails the test if anything was left, or if the controller
/// has taken a VMDS for an attacker.
#[derive(Debug)]
pub struct World {
    binaries: Binaries,
    arguments: Vec<String>,
    dir: TempDir,
    controller: Option<Process>,
    starter: Starter,
    starts: u32,
    /// Where tenants live, if not in a directory.
    objects: Option<Store>,
    /// Every VMDS ever seen, to see at the end that none is left.
    seen: RefCell<HashSet<Process>>,
    /// There are VMDSes that do what no honest one does.
    hostile: Cell<bool>,
    _watchdog: Sender<()>,
}

impl World {
    /// Starts a controller and waits until it is ready.
    #[track_caller]
    pub fn start(binaries: Binaries) -> Self {
        Self::start_with(binaries, &[])
    }

    /// Starts a controller with more arguments and waits until it is ready.
    #[track_caller]
    pub fn start_with(binaries: Binaries, arguments: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests mount file systems: run them as root");
        assert!(Path::new("/dev/fuse").exists(), "these tests need FUSE: /dev/fuse is missing");
        let dir =
            tempfile::Builder::new().prefix("vmds-test-").tempdir().expect("make a temporary directory");
        // Tests act as other users too.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("open the directory to all");
        let watchdog = watch(dir.path().to_owned());
        let mut world = Self {
            binaries,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            dir,
            controller: None,
            starter: Starter::new(),
            starts: 0,
            objects: None,
            seen: RefCell::default(),
            hostile: Cell::new(false),
            _watchdog: watchdog,
        };
        world.start_controller();
        world
    }

    /// The temporary directory of this world.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the controller keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// Where the controller's socket is.
    pub fn run_dir(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// Where tenants are mounted unless a test says otherwise.
    pub fn mount_point(&self, tenant: &str) -> PathBuf {
        self.dir().join("mnt").join(tenant)
    }

    /// The command that starts a controller on the directories of this world.
    pub fn serve_command(&self) -> Command {
        let mut command = Command::new(&self.binaries.controller);
        command.arg("serve").arg("--state-dir").arg(self.state_dir()).arg("--run-dir").arg(self.run_dir());
        command.arg("--vmds").arg(&self.binaries.vmds).args(&self.arguments);
        command
    }

    /// VMDSes are started from another program from the next start of the controller on.
    pub fn use_vmds(&mut self, program: &Path) {
        self.binaries.vmds = program.to_owned();
    }

    /// Starts the controller, which must not be running, and waits until it is ready.
    #[track_caller]
    pub fn start_controller(&mut self) {
        assert!(self.controller.is_none(), "the controller is running already");
        self.starts += 1;
        let (command, log) = (self.serve_command(), self.log_path());
        let started = self.starter.start(&command, &log);
        let is_ready = || self.log().lines().any(|line| line.starts_with(READY));
        wait_until("the controller says that it is ready", READY_DEADLINE, || {
            is_ready() || !started.is_some_and(Process::is_alive)
        });
        if !is_ready() {
            let status = self.starter.await_end(started, END_DEADLINE);
            panic!("the controller ended while it started: {status:?}\n{}", self.log());
        }
        self.controller = started;
    }

    /// Asks the controller to end, waits until it has, and until its VMDSes have.
    #[track_caller]
    pub fn stop_controller(&mut self) -> ExitStatus {
        let controller = self.controller();
        self.see();
        controller.signal(Signal::TERM);
        self.controller = None;
        let status = self.starter.await_end(Some(controller), END_DEADLINE);
        if status.is_none() {
            controller.signal(Signal::KILL);
            self.starter.await_end(Some(controller), END_DEADLINE);
        }
        let status = status.unwrap_or_else(|| panic!("the controller ignores SIGTERM:\n{}", self.log()));
        wait_until("all VMDSes end with the controller", END_DEADLINE, || self.remaining().is_empty());
        status
    }

    /// Kills the controller as a crash would. Its VMDSes and mounts are left as they are.
    #[track_caller]
    pub fn kill_controller(&mut self) {
        self.see();
        let controller = self.controller();
        self.controller = None;
        controller.signal(Signal::KILL);
        let status = self.starter.await_end(Some(controller), END_DEADLINE);
        assert!(status.is_some(), "a killed controller is gone");
    }

    /// The process of the controller.
    #[track_caller]
    pub fn controller(&self) -> Process {
        let controller = self.controller.expect("the controller runs");
        assert!(controller.is_alive(), "the controller has ended by itself:\n{}", self.log());
        controller
    }

    /// The VMDSes that run now.
    #[track_caller]
    pub fn vmdses(&self) -> Vec<Process> {
        let vmdses: Vec<Process> = children(self.controller().pid)
            .into_iter()
            .filter(|p| {
                fs::read_link(format!("/proc/{}/exe", p.pid)).is_ok_and(|exe| exe == self.binaries.vmds)
            })
            .collect();
        self.seen.borrow_mut().extend(&vmdses);
        vmdses
    }

    /// The only VMDS that runs now.
    #[track_caller]
    pub fn vmds(&self) -> Process {
        match self.vmdses()[..] {
            [only] => only,
            ref others => panic!("expected one VMDS, there are {}:\n{}", others.len(), self.log()),
        }
    }

    /// Takes a VMDS over, to have it do what no honest one does.
    #[track_caller]
    pub fn capture(&self, vmds: Process) -> Captured {
        self.expect_accusations();
        Captured::take(vmds)
    }

    /// From now on it is no failure of the test when the controller takes a VMDS for an attacker.
    pub fn expect_accusations(&self) {
        self.hostile.set(true);
    }

    /// Remembers all children of the controller, whatever they are.
    fn see(&self) {
        if let Some(controller) = self.controller {
            self.seen.borrow_mut().extend(children(controller.pid));
        }
    }

    /// Processes of this world, other than the controller, that have not ended.
    fn remaining(&self) -> Vec<Process> {
        self.seen.borrow().iter().copied().filter(|p| p.is_alive()).collect()
    }
}

/// Restarts.
impl World {
    /// Stops the controller and starts it again; waits until all mounts are back.
    #[track_caller]
    pub fn restart_controller(&mut self) {
        let mounts = self.mounts();
        let status = self.stop_controller();
        assert!(status.success(), "{status}\n{}", self.log());
        assert_eq!(self.mounts(), 0, "a controller that was stopped leaves no mounts");
        self.start_controller();
        self.await_mounts(mounts);
    }

    /// Kills the controller and starts it again; waits until all mounts are back.
    #[track_caller]
    pub fn crash_controller(&mut self) {
        let mounts = self.mounts();
        self.kill_controller();
        self.start_controller();
        self.await_mounts(mounts);
    }

    /// Waits until this many mounts of this world answer, and there are no others.
    #[track_caller]
    pub fn await_mounts(&self, count: usize) {
        wait_until("all mounts are back", READY_DEADLINE, || {
            let mounts = vmds_mounts(self.dir());
            mounts.len() == count && mounts.iter().all(|point| fs::read_dir(point).is_ok())
        });
        self.vmdses();
    }

    fn mounts(&self) -> usize {
        vmds_mounts(self.dir()).len()
    }
}

/// Mount points of VMDS below a directory.
fn vmds_mounts(dir: &Path) -> Vec<PathBuf> {
    let mounts = mounts_under(dir).into_iter().filter(|mount| mount.kind == "fuse.vmds");
    mounts.map(|mount| mount.point).collect()
}

/// Aborts everything mounted under `dir` when the returned sender is not dropped in time.
fn watch(dir: PathBuf) -> Sender<()> {
    let (sender, receiver) = channel();
    let patience = if full() { STUCK_AFTER.1 } else { STUCK_AFTER.0 };
    thread::spawn(move || {
        if receiver.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{}: not done after {patience:?}, aborting its mounts", dir.display());
            detach_all_under(&dir);
        }
    });
    sender
}

impl Drop for World {
    fn drop(&mut self) {
        self.see();
        let mut left = Vec::new();
        if let Some(controller) = self.controller.take() {
            controller.signal(Signal::TERM);
            if self.starter.await_end(Some(controller), END_DEADLINE).is_none() {
                left.push("the controller, which ignored SIGTERM".to_owned());
                // Ends the wait of whoever is stuck in a mount, the controller itself included.
                detach_all_under(self.dir.path());
                controller.signal(Signal::KILL);
                self.starter.await_end(Some(controller), END_DEADLINE);
            }
            let mounts = vmds_mounts(self.dir.path()).into_iter();
            left.extend(mounts.map(|point| format!("the mount {}", point.display())));
        }
        detach_all_under(self.dir.path());
        for process in self.remaining() {
            left.push(format!("process {}", process.pid));
            process.signal(Signal::KILL);
        }
        if thread::panicking() {
            eprintln!("--- controller of the failed test ---\n{}", self.log());
        } else {
            assert!(left.is_empty(), "left behind: {}\n{}", left.join(", "), self.log());
            let accusations = self.accusations();
            assert!(
                accusations.is_empty() || self.hostile.get(),
                "an honest VMDS was accused: {accusations:#?}"
            );
        }
    }
}

//! The process in the sandbox: what it inherits, how it is started, and how it ended.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Descriptor of a leased file.
pub(crate) const FILE: i32 = 3;
/// Descriptor of a socket, whose other end the parent has.
pub(crate) const SOCKET: i32 = 4;
/// Descriptor of a FUSE device.
pub(crate) const DEVICE: i32 = 5;
/// Descriptor of a second leased file.
pub(crate) const SECOND_FILE: i32 = 6;
/// Names what the process in the sandbox is to do.
pub(crate) const TASK: &str = "VMDS_ATTACK_TASK";
/// Names the process that attacks are aimed at.
const VICTIM: &str = "VMDS_ATTACK_VICTIM";
/// The user it is.
pub(crate) const UID: u32 = 1_900_000_001;
/// What it prints when it is in the sandbox, before it does anything.
pub(crate) const READY: &str = "in the sandbox";

/// The process that attacks are aimed at: the parent, which is root.
pub(crate) fn victim() -> i32 {
    std::env::var(VICTIM).unwrap().parse().unwrap()
}

/// Two files, and what the process in the sandbox gets of them and of everything else.
pub(crate) struct Fixture {
    pub(crate) file: File,
    pub(crate) second: File,
    /// The other end of its socket.
    pub(crate) socket: OwnedFd,
    theirs: OwnedFd,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (socket, theirs) = pair.unwrap();
        Self { file, second: tempfile::tempfile().unwrap(), socket, theirs }
    }

    /// Starts a process that enters the sandbox and does `task`.
    pub(crate) fn start(&self, task: &str) -> Child {
        let device = open_device();
        let copy = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().unwrap();
        let inherited = [
            (copy(&self.file), FILE),
            (copy(&self.theirs), SOCKET),
            (device, DEVICE),
            (copy(&self.second), SECOND_FILE),
        ];
        let mappings =
            inherited.into_iter().map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env_clear()
            .env(TASK, task)
            .env(VICTIM, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.fd_mappings(mappings).unwrap();
        command.spawn().unwrap()
    }

    /// Starts such a process and waits for its end.
    pub(crate) fn run(&self, task: &str) -> Output {
        self.start(task).wait_with_output().unwrap()
    }
}

fn open_device() -> OwnedFd {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Runs a VMDS with the descriptors it wants and nobody at their other ends.
pub(crate) fn vmds(arguments: &[&str]) -> Output {
    let socket =
        || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap().0;
    let inherited = [open_device(), socket(), socket(), socket(), socket()].into_iter().zip(3..);
    let mappings = inherited.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmds"));
    command.env_clear().args(arguments).fd_mappings(mappings).unwrap();
    command.output().unwrap()
}

/// How a process ended, for people.
pub(crate) fn describe(output: &Output) -> String {
    format!(
        "code {:?}, signal {:?}, said {:?} {:?}",
        output.status.code(),
        output.status.signal(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

//! Starting a VMDS: the descriptors it gets, and everything it does not get.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};

use super::pace;
use crate::throttle::Throttle;

/// `/dev/fuse`, in the VMDS.
const FUSE_FD: i32 = 3;
/// The socket with the kernel's first request, in the VMDS.
const INIT_FD: i32 = 4;
/// The link to the controller, in the VMDS.
const LINK_FD: i32 = 5;
/// The socket on which the VMDS waits for a new controller, in the VMDS.
const DOOR_FD: i32 = 6;
/// Where `/dev/fuse` is in a VMDS that serves.
pub(super) const SERVING_FD: i32 = FUSE_FD;
/// The other end of the door, kept by the VMDS for a controller to come.
pub(super) const DOOR_OUTSIDE_FD: i32 = 7;

/// Longest line of a VMDS's log that is passed on, bytes: what a tenant's process says is not trusted.
const LOG_LINE_MAX: u64 = 4096;
/// Lines of a VMDS's log that are passed on, per [`LOG_PERIOD`].
const LOG_BURST: u32 = 200;
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// What a VMDS inherits.
pub(super) struct Inheritance {
    /// `/dev/fuse`.
    pub device: OwnedFd,
    /// The socket with the kernel's first request.
    pub init: OwnedFd,
    /// The link to the controller.
    pub link: OwnedFd,
    /// The socket on which it waits for a new controller.
    pub door: OwnedFd,
    /// The other end of that socket.
    pub door_outside: OwnedFd,
}

/// Starts a VMDS without environment and other descriptors. It begins by becoming `uid`, which takes every capability
/// from it: it cannot be started as that uid, because the program may lie where only root can go.
pub(super) fn spawn(program: &Path, uid: u32, tenant: &str, inheritance: Inheritance) -> io::Result<Child> {
    let mapping = |parent_fd, child_fd| FdMapping { parent_fd, child_fd };
    let mut command = Command::new(program);
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .args(["--uid", &uid.to_string()])
        .fd_mappings(vec![
            mapping(inheritance.device, FUSE_FD),
            mapping(inheritance.init, INIT_FD),
            mapping(inheritance.link, LINK_FD),
            mapping(inheritance.door, DOOR_FD),
            mapping(inheritance.door_outside, DOOR_OUTSIDE_FD),
        ])
        .map_err(io::Error::other)?;
    let mut child = command.spawn()?;
    if let Some(log) = child.stderr.take() {
        let tenant = tenant.to_owned();
        std::thread::Builder::new().name("vmds-log".into()).spawn(move || {
            pace::slow_down();
            pass_on(log, &tenant);
        })?;
    }
    Ok(child)
}

/// Repeats what a VMDS logs, line by line, until it ends. Of what is too much only the number of lines is told.
fn pass_on(log: ChildStderr, tenant: &str) {
    let mut log = BufReader::new(log);
    let (mut line, throttle) = (Vec::new(), Throttle::new(LOG_BURST, LOG_PERIOD));
    loop {
        line.clear();
        match log.by_ref().take(LOG_LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let Some(untold) = throttle.pass() else { continue };
                if untold > 0 {
                    tracing::warn!(target: "vmds", %tenant, untold, "the VMDS logs too much");
                }
                let line = String::from_utf8_lossy(line.trim_ascii_end());
                tracing::info!(target: "vmds", %tenant, "{}", line.escape_debug());
            }
        }
    }
}

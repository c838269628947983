//! `/dev/fuse` as the agent uses it: opened and kept for the life of a mount, and spoken to only for the first
//! request, whose bytes every generation of the VMDS gets to see.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};

/// Larger than any first request.
const INIT_REQUEST_MAX: usize = 128 * 1024;
/// Larger than any reply to it.
const INIT_REPLY_MAX: usize = 4096;
/// How long a VMDS may take for its reply.
const INIT_DEADLINE: Duration = Duration::from_secs(10);

/// Opens a connection to the kernel; it is not mounted yet.
pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Reads the request with which the kernel begins, right after the mount.
pub(super) fn read_init(device: &OwnedFd) -> io::Result<Vec<u8>> {
    wait_readable(device, INIT_DEADLINE, "the kernel did not begin the conversation")?;
    let mut request = vec![0; INIT_REQUEST_MAX];
    let length = rustix::io::read(device, &mut request)?;
    request.truncate(length);
    Ok(request)
}

/// The socket on which a VMDS finds the kernel's first request; the other end gets its reply.
pub(super) fn offer_init(request: &[u8]) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&ours, request, SendFlags::NOSIGNAL)?;
    Ok((ours, theirs))
}

/// Waits for the VMDS's reply to the first request.
pub(super) fn receive_init_reply(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    wait_readable(socket, INIT_DEADLINE, "the VMDS did not answer the kernel's first request")?;
    let mut reply = vec![0; INIT_REPLY_MAX];
    let length = rustix::io::read(socket, &mut reply)?;
    if length == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the VMDS ended before it answered the kernel",
        ));
    }
    reply.truncate(length);
    Ok(reply)
}

/// Passes the reply on to the kernel: from now on it sends requests.
pub(super) fn write_init_reply(device: &OwnedFd, reply: &[u8]) -> io::Result<()> {
    rustix::io::write(device, reply).map(drop).map_err(Into::into)
}

fn wait_readable(fd: &OwnedFd, deadline: Duration, sentence: &'static str) -> io::Result<()> {
    let deadline = Timespec::try_from(deadline).expect("a few seconds fit");
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&deadline)))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, sentence)),
        _ => Ok(()),
    }
}

//! One VMDS process: started here, or taken over from a controller that is no more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use address_map::wire::{AtDoor, FrameSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};

use super::device;
use super::spawn::{DOOR_OUTSIDE_FD, Inheritance, SERVING_FD, spawn};

/// How long a VMDS that was killed may take to be gone before nobody waits for it any more.
const LINGERS_AFTER: Duration = Duration::from_secs(2);

/// How the wait for the end of a VMDS ended.
pub(super) enum End {
    /// It is gone. How it ended is known only of one that was started here.
    Gone(Option<ExitStatus>),
    /// It was killed, but a thread of it sits in the kernel, in a call on a file system that does not answer. No thread
    /// of it runs a program any more, so its place is free.
    Lingers,
}

/// A VMDS process. It is found by a descriptor of the process, never by its number alone.
pub(super) struct Server {
    pid: u32,
    process: OwnedFd,
    child: Option<Child>,
    /// Where the kernel's first request waits and the word to begin is given; gone once it serves.
    init: Option<OwnedFd>,
}

impl Server {
    /// Starts a VMDS that waits for the word to begin. Answers it and the controller's end of its link.
    pub(super) fn start(
        program: &Path,
        uid: u32,
        tenant: &str,
        device: &OwnedFd,
        init_request: &[u8],
    ) -> io::Result<(Self, FrameSocket)> {
        let (init, init_theirs) = device::offer_init(init_request)?;
        let (link, link_theirs) = FrameSocket::pair()?;
        let (door_outside, door) = FrameSocket::pair()?;
        let inheritance = Inheritance {
            device: device.try_clone()?,
            init: init_theirs,
            link: link_theirs.into(),
            door: door.into(),
            door_outside: door_outside.into(),
        };
        let child = spawn(program, uid, tenant, inheritance)?;
        let process = open_process(child.id())?;
        Ok((Self { pid: child.id(), process, child: Some(child), init: Some(init) }, link))
    }

    /// Takes over a VMDS that has lost its controller: gets the FUSE device it serves, and gives it a new link.
    /// `started` is when the process was started, in the kernel's ticks: numbers of processes are used again.
    pub(super) fn adopt(pid: u32, started: u64) -> io::Result<(Self, OwnedFd, FrameSocket)> {
        let process = open_process(pid)?;
        if start_time(pid)? != started {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("process {pid} is another one by now"),
            ));
        }
        let device = pidfd_getfd(&process, SERVING_FD, PidfdGetfdFlags::empty())?;
        let door = FrameSocket::from(pidfd_getfd(&process, DOOR_OUTSIDE_FD, PidfdGetfdFlags::empty())?);
        let (link, theirs) = FrameSocket::pair()?;
        door.send(&AtDoor::Controller, Some(theirs.as_fd())).map_err(io::Error::other)?;
        Ok((Self { pid, process, child: None, init: None }, device, link))
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// When it was started, in the kernel's ticks.
    pub(super) fn started(&self) -> io::Result<u64> {
        start_time(self.pid)
    }

    /// A descriptor of the process.
    pub(super) fn process(&self) -> io::Result<OwnedFd> {
        self.process.try_clone()
    }

    /// Waits for its reply to the kernel's first request.
    pub(super) fn init_reply(&self) -> io::Result<Vec<u8>> {
        match &self.init {
            Some(init) => device::receive_init_reply(init),
            None => Err(io::Error::other("this VMDS serves already")),
        }
    }

    /// Gives the word to begin: from now on it reads the kernel's requests.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if let Some(init) = self.init.take() {
            rustix::net::send(&init, &[1], SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Waits until it has ended, but not for long once `doomed` can be read: then it was killed.
    pub(super) fn wait(&mut self, doomed: &OwnedFd) -> io::Result<End> {
        let process = PollFd::from_borrowed_fd(self.process.as_fd(), PollFlags::IN);
        let mut fds = [process, PollFd::new(doomed, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let [process, _] = fds;
        let deadline = Timespec::try_from(LINGERS_AFTER).map_err(io::Error::other)?;
        match rustix::io::retry_on_intr(|| poll(&mut [process.clone()], Some(&deadline)))? {
            0 => Ok(End::Lingers),
            _ => self.wait_gone().map(End::Gone),
        }
    }

    /// Waits until it is gone, however long it takes. How it ended is known only of one that was started here.
    pub(super) fn wait_gone(&mut self) -> io::Result<Option<ExitStatus>> {
        if let Some(child) = &mut self.child {
            return child.wait().map(Some);
        }
        let mut fds = [PollFd::from_borrowed_fd(self.process.as_fd(), PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        Ok(None)
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        kill(&self.process);
    }
}

/// Ends a process at once; it may have ended by itself a moment ago.
pub(super) fn kill(process: &OwnedFd) {
    let _ = pidfd_send_signal(process, Signal::KILL);
}

fn open_process(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// When a process was started, in the kernel's ticks: field 22 of its `stat`.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
    let field = behind_name.and_then(|rest| rest.split(' ').nth(19)).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is malformed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let this = std::process::id();
        let started = start_time(this).unwrap();
        assert!(started > 0);
        let error = Server::adopt(this, started + 1).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

//! The descriptors a VMDS inherits, checked before they are believed.
//!
//! One of the three files with `unsafe`: taking ownership of a descriptor by number, and replacing one that another
//! library owns, cannot be expressed otherwise.

#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::FileType;
use rustix::io::{DupFlags, FdFlags};
use rustix::net::{SocketType, sockopt};
use thiserror::Error;

/// Number of the descriptor of `/dev/fuse`.
const DEVICE: RawFd = 3;
/// Number of the socket that carries the kernel's INIT request.
const HANDSHAKE: RawFd = 4;
/// Number of the socket to the controller.
const CONTROL: RawFd = 5;
/// Number of the socket on which a new controller is awaited.
const DOOR: RawFd = 6;
/// Number of the other end of that socket: kept for a controller to come, which takes it from the outside.
const DOOR_OUTSIDE: RawFd = 7;
/// Device number of `/dev/fuse`.
const FUSE_DEVICE: (u32, u32) = (10, 229);

/// A descriptor is not what the controller passes.
#[derive(Debug, Error)]
#[error(
    "vmds is started by vmds-controller and not by hand: descriptor {number} is not {wanted}; use `vmdsctl mount` to mount a tenant"
)]
pub(crate) struct NotInherited {
    number: RawFd,
    wanted: &'static str,
}

/// What a VMDS lives on.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The FUSE device of the mount.
    pub(crate) device: OwnedFd,
    /// A packet socket that holds the kernel's INIT request and takes the answer.
    pub(crate) handshake: OwnedFd,
    /// A packet socket to the controller.
    pub(crate) control: OwnedFd,
    /// A packet socket on which a new controller is awaited.
    pub(crate) door: OwnedFd,
}

impl Inherited {
    /// Takes the descriptors. Must be called once, before anything else opens descriptors.
    pub(crate) fn take() -> Result<Self, NotInherited> {
        check(DEVICE, "the FUSE device", is_fuse_device)?;
        check(HANDSHAKE, "a packet socket", is_packet_socket)?;
        check(CONTROL, "a packet socket", is_packet_socket)?;
        check(DOOR, "a packet socket", is_packet_socket)?;
        // Never owned by anything here, so never closed: it is for others.
        check(DOOR_OUTSIDE, "a packet socket", is_packet_socket)?;
        Ok(Self { device: own(DEVICE), handshake: own(HANDSHAKE), control: own(CONTROL), door: own(DOOR) })
    }
}

fn check(
    number: RawFd,
    wanted: &'static str,
    is_wanted: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<bool>,
) -> Result<(), NotInherited> {
    // SAFETY: the borrow ends with this function. If nothing is open under the number the calls below answer
    // EBADF and nothing is touched; nobody else closes descriptors at this early point of the process.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let good = is_wanted(fd).and_then(|good| rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).map(|()| good));
    if good.unwrap_or(false) { Ok(()) } else { Err(NotInherited { number, wanted }) }
}

fn is_fuse_device(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && number == FUSE_DEVICE)
}

fn is_packet_socket(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    Ok(sockopt::socket_type(fd)? == SocketType::SEQPACKET)
}

fn own(number: RawFd) -> OwnedFd {
    // SAFETY: `check` has just seen the descriptor open, it was inherited and so belongs to no other object of
    // this process, and `take` is called once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Makes the number of `target` name the file of `source`; what it named before is closed.
pub(crate) fn replace(target: BorrowedFd<'_>, source: impl AsFd) -> io::Result<()> {
    // SAFETY: `dup3` leaves a valid descriptor under the same number, so whoever owns `target` goes on owning a
    // valid one. `ManuallyDrop` keeps this second handle from closing it.
    let mut target = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(target.as_raw_fd()) });
    Ok(rustix::io::dup3(source, &mut target, DupFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_replaced_descriptor_names_the_other_file() {
        let mut first = tempfile::tempfile().unwrap();
        let mut second = tempfile::tempfile().unwrap();
        first.write_all(b"first").unwrap();
        second.write_all(b"second").unwrap();
        replace(first.as_fd(), &second).unwrap();
        std::io::Seek::rewind(&mut first).unwrap();
        let mut text = String::new();
        first.read_to_string(&mut text).unwrap();
        assert_eq!(text, "second");
    }

    #[test]
    fn kinds_are_told_apart() {
        let file = tempfile::tempfile().unwrap();
        assert!(!is_fuse_device(file.as_fd()).unwrap());
        assert!(is_packet_socket(file.as_fd()).is_err());
        let (socket, _peer) = address_map::wire::FrameSocket::pair().unwrap();
        assert!(is_packet_socket(socket.as_fd()).unwrap());
    }
}

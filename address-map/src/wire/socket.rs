//! A socket that carries frames and, with a frame, at most one file descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bincode::{Decode, Encode};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use thiserror::Error;

use super::frame::{self, FrameError};
use crate::limits::FRAME_MAX;

/// Why a frame could not be sent or received. The socket is of no more use after any of these.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The peer sent something that is not a frame, or a frame could not be made.
    #[error("bad frame")]
    Frame(#[from] FrameError),
    /// The peer sent more than one descriptor with a frame.
    #[error("a frame carries at most one descriptor")]
    TooManyDescriptors,
    /// The socket failed, or the peer did not take a frame in time.
    #[error("socket failed")]
    Io(#[from] io::Error),
}

/// One end of a `SOCK_SEQPACKET` pair. Sending and receiving may happen on different threads.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
}

/// Kernel buffer per direction, bytes: room for several of the largest frames.
const SOCKET_BUFFER: usize = 8 * FRAME_MAX;

impl FrameSocket {
    /// Two connected ends, closed on exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for end in [&a, &b] {
            sockopt::set_socket_send_buffer_size(end, SOCKET_BUFFER)?;
        }
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Bounds how long [`FrameSocket::send`] waits for a peer that does not read.
    pub fn set_send_timeout(&self, timeout: Duration) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(&self.fd, sockopt::Timeout::Send, Some(timeout))?)
    }

    /// Sends a message, and `descriptor` with it. Waits while the peer's buffer is full.
    pub fn send<T: Encode>(
        &self,
        message: &T,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), SocketError> {
        self.send_with(message, descriptor, SendFlags::NOSIGNAL)
    }

    /// Sends a message without ever waiting: a full buffer is an error.
    pub fn send_now<T: Encode>(&self, message: &T) -> Result<(), SocketError> {
        self.send_with(message, None, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with<T: Encode>(
        &self,
        message: &T,
        descriptor: Option<BorrowedFd<'_>>,
        flags: SendFlags,
    ) -> Result<(), SocketError> {
        let mut bytes = Vec::with_capacity(256);
        frame::encode(message, &mut bytes)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.map(|fd| [fd]);
        if let Some(fds) = &descriptors {
            assert!(
                control.push(SendAncillaryMessage::ScmRights(fds)),
                "the buffer has room for one descriptor"
            );
        }
        rustix::io::retry_on_intr(|| sendmsg(&self.fd, &[IoSlice::new(&bytes)], &mut control, flags))
            .map_err(io::Error::from)?;
        Ok(())
    }

    /// Waits for a message and the descriptor that came with it; `None` when the peer is gone.
    ///
    /// `buffer` is scratch space that callers keep between calls.
    pub fn receive<T: Decode<()>>(
        &self,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<(T, Option<OwnedFd>)>, SocketError> {
        buffer.resize(FRAME_MAX + 1, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.fd, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => other.map_err(io::Error::from)?,
        };
        let mut descriptors = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten();
        let descriptor = descriptors.next();
        if descriptors.count() > 0 || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(SocketError::TooManyDescriptors);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(FrameError::TooLong(received.bytes).into());
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((frame::decode(&buffer[..received.bytes])?, descriptor)))
    }

    /// Ends the conversation in both directions: a receiver on either end sees the peer gone.
    pub fn shutdown(&self) {
        // The peer may be gone already; there is nothing to do about it then.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }
}

impl From<OwnedFd> for FrameSocket {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<FrameSocket> for OwnedFd {
    fn from(socket: FrameSocket) -> Self {
        socket.fd
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;
    use crate::ids::NodeId;
    use crate::wire::{Call, ToController};

    #[test]
    fn a_frame_and_its_descriptor_arrive() {
        let (a, b) = FrameSocket::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"bytes").unwrap();
        let message = ToController::Request { id: 9, call: Call::Getattr { node: NodeId::ROOT } };
        a.send(&message, Some(file.as_fd())).unwrap();
        let (received, fd) = b.receive::<ToController>(&mut Vec::new()).unwrap().unwrap();
        assert_eq!(received, message);
        let mut copy = std::fs::File::from(fd.unwrap());
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
        drop(a);
        assert!(b.receive::<ToController>(&mut Vec::new()).unwrap().is_none());
    }

    #[test]
    fn a_frame_too_long_is_refused_by_both_sides() {
        let (a, b) = FrameSocket::pair().unwrap();
        let long = ToController::Request {
            id: 1,
            call: Call::Getxattr { node: NodeId::ROOT, name: vec![0; FRAME_MAX] },
        };
        assert!(matches!(a.send(&long, None), Err(SocketError::Frame(FrameError::TooLong(_)))));
        rustix::net::send(&a, &vec![0; FRAME_MAX + 1], SendFlags::empty()).unwrap();
        let error = b.receive::<ToController>(&mut Vec::new()).unwrap_err();
        assert!(matches!(error, SocketError::Frame(FrameError::TooLong(_))), "{error:?}");
    }
}

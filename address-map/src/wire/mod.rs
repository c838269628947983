//! What a VMDS and the controller say to each other, and how it becomes frames.
//!
//! The link is a `SOCK_SEQPACKET` socketpair made by the controller: one frame per packet, file descriptors ride
//! along with the packet that names them. The socket itself is the tenant's identity; no frame carries one.

mod bytes;
mod frame;
mod message;
mod socket;

pub use bytes::{Address, Lease, Near, Source};
pub use frame::{FrameError, decode, encode};
pub use message::*;
pub use socket::{FrameSocket, SocketError};

//! An S3 server inside the test process: real HTTP on a loopback port, real signatures, objects in memory, and faults
//! that a test switches on and off while it runs.
//!
//! Signatures, headers and XML are `s3s`'s; what the operations do is here, on an in-memory store in which every
//! condition (`If-Match`, `If-None-Match`) is decided and acted upon under one lock. Requests pass through these
//! layers, from the outside in: `wire` (a socket that can be cut at a chosen byte), `front` (records the request,
//! applies the faults), `s3s` (verifies the signature), `access` (who may do what), `service` (the operations).
//!
//! What it never does: versions, ACLs, tags, encryption, session tokens. A request that asks for something this server
//! does not do is refused with `NotImplemented`, never half obeyed.

mod access;
mod body;
mod bucket;
mod content;
mod faults;
mod front;
mod listing;
mod multipart;
mod objects;
mod options;
mod record;
mod server;
mod service;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub use bucket::{ObjectInfo, OpenUpload, S3Bucket};
pub use faults::{Fault, FaultId, FaultRule, Faults};
pub use options::{S3Options, User};
pub use record::{Recorded, RequestKind};
pub use server::S3Server;
pub use tls::{Authority, ServerTls};

//! The address map: which tenant sees which name, and where the bytes behind it really are.
//!
//! This crate is the pure heart of VMDS. It holds the model (inodes, directory entries, grants, injections),
//! the record format, the storage engines behind a shard, every namespace operation as one transaction, and
//! the frames that a VMDS and the controller exchange. It knows nothing of FUSE, HTTP or S3, and it contains
//! no `unsafe`.
//!
//! Reading order: [`ids`] and [`attr`] for the vocabulary, [`record`] and [`key`] for what is stored,
//! [`engine`] for how it is stored, [`shard`] for transactions, [`namespace`] for the operations, [`wire`] for
//! what leaves the process.

#![forbid(unsafe_code)]

pub mod acl;
pub mod attr;
pub mod check;
pub mod clock;
pub mod codec;
pub mod engine;
pub mod error;
pub mod ids;
pub mod key;
pub mod limits;
pub mod map;
pub mod name;
pub mod namespace;
pub mod record;
pub mod shard;
pub mod sums;
pub mod wire;

pub use error::{MapError, Result};

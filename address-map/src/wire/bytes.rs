//! Where the bytes of a file are, as a VMDS is told.

use bincode::{Decode, Encode};

/// Where the bytes of a file of an object store are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Source {
    /// To be asked for with `fill` when they are needed.
    Unfilled,
    /// These are all of them.
    Inline(Vec<u8>),
    /// Behind an address.
    Address(Address),
}

/// An address lease: what to say to the object store to be given the bytes of one object, and no other.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Address {
    /// Number of the pool: connections of one pool serve all its addresses.
    pub pool: u32,
    /// Path and query of the request, signed.
    pub target: String,
    /// Headers to send with it: `Host`, and those that are part of the signature, with which the store gives this
    /// version of the object or none.
    pub headers: Vec<(String, String)>,
    /// What the store calls this version of the object.
    pub etag: String,
    /// Size of the object, bytes.
    pub size: u64,
    /// For how long the address can be used, milliseconds from now.
    pub valid_ms: u32,
    /// The first block of its [`crate::sums`]; empty: nobody has made any.
    pub sums: Vec<u64>,
}

impl std::fmt::Debug for Address {
    /// Without the signature: addresses are not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pool, etag, size, valid_ms, .. } = self;
        write!(f, "Address {{ pool: {pool}, etag: {etag}, size: {size}, valid_ms: {valid_ms} }}")
    }
}

/// A lease that is a descriptor, and how to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lease {
    /// The descriptor may be written.
    pub write: bool,
    /// Number under which the kernel knows the file for passthrough. All opens of the inode name this one; absent:
    /// no passthrough for this inode.
    pub backing: Option<u32>,
    /// The file belongs to an object store and is only being written here: the descriptor is good until the inode
    /// changes or the last writer has closed it, and each closing of a writer is a [`super::Call::Flush`].
    pub floating: bool,
    /// The file is not on a local file system: any call on it may wait for another machine.
    pub remote: bool,
    /// No other session may be writing the file. When one begins to, who writes is told that the inode is stale.
    pub alone: bool,
    /// Not all bytes of the file need to be there yet.
    pub near: Option<Near>,
}

/// What of a leased file may be missing: before bytes of a chunk are used, [`super::Call::Fill`] has to be answered for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Near {
    /// Which backing file this is: another one that takes its place has another number.
    pub tag: u64,
    /// Size of a chunk, bytes; the first begins with the file.
    pub chunk: u64,
    /// What lies at and behind this offset is there; but who writes there says so once.
    pub end: u64,
}

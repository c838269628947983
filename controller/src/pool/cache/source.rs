//! Where the bytes of a cached object come from, and why they do not.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use address_map::error::MapError;

use crate::lease::File;
use crate::pool::BackingFile;

/// Where bytes come from, and what is known of them.
pub trait Source {
    /// Copies bytes of the object to the same place of a file, and proves them; answers whether anybody can.
    ///
    /// # Errors
    /// See [`Fetched`].
    fn fetch(&self, bytes: Range<u64>, into: Arc<OwnedFd>) -> Result<Proof, Fetched>;

    /// Whether bytes of a file are those of the object, as far as anybody can know.
    ///
    /// # Errors
    /// The object is not that of the file any more, or what is known of it cannot be read.
    fn proves(&self, file: &BackingFile, bytes: Range<u64>) -> Result<bool, MapError>;

    /// Whether somebody has leased a file: then it stays.
    fn is_leased(&self, file: File) -> bool;
}

/// What is known of bytes that were fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// They are those of the object.
    Given,
    /// Nobody has made sums of them: they are believed.
    None,
}

/// Why bytes were not fetched.
#[derive(Debug)]
pub enum Fetched {
    /// The file cannot take them.
    Not(io::Error),
    /// The store does not give them.
    Refused(MapError),
}

/// Why bytes are not there.
#[derive(Debug)]
pub enum FillError {
    /// The file that was meant is not the one of this object any more.
    Gone,
    /// There is no room for them, or the directory cannot be used: they have to be read elsewhere.
    NoRoom,
    /// Somebody else is bringing them, and that takes long.
    UnderWay,
    /// The store does not give them.
    Refused(MapError),
}

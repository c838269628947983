//! How a record becomes bytes: `version (1) | bincode 2 payload | CRC-32 of all before (4, little-endian)`.
//!
//! The version is that of the record's layout. A reader accepts the versions it knows and refuses newer ones with
//! a clear error; golden files prove that old bytes stay readable.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use thiserror::Error;

/// The layout of records written by this version.
pub const RECORD_VERSION: u8 = 1;

/// Largest record, in bytes; bounds what a damaged length can make a reader allocate.
const RECORD_MAX: usize = 128 * 1024;
const CHECKSUM_BYTES: usize = 4;

/// The one bincode configuration of records and frames.
pub(crate) const CONFIG: Configuration<LittleEndian, Varint, Limit<RECORD_MAX>> =
    bincode::config::standard().with_limit::<RECORD_MAX>();

/// Why bytes are not a record.
#[derive(Debug, Error)]
pub enum CodecError {
    /// Fewer bytes than a version and a checksum.
    #[error("{0} bytes are too few for a record")]
    TooShort(usize),
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// Written by a newer version.
    #[error("record version {0} is newer than {RECORD_VERSION}")]
    TooNew(u8),
    /// The payload does not decode.
    #[error("malformed payload")]
    Malformed(#[from] bincode::error::DecodeError),
    /// Bytes were left over after the payload.
    #[error("{0} bytes too many after the payload")]
    Trailing(usize),
}

/// Encodes a record.
pub fn encode<T: Encode>(record: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    bytes.push(RECORD_VERSION);
    bincode::encode_into_std_write(record, &mut bytes, CONFIG).expect("encoding into memory cannot fail");
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Decodes a record.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(CodecError::TooShort(bytes.len()));
    };
    let Some((&version, payload)) = body.split_first() else {
        return Err(CodecError::TooShort(bytes.len()));
    };
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err(CodecError::Checksum);
    }
    if version > RECORD_VERSION {
        return Err(CodecError::TooNew(version));
    }
    let (record, used) = bincode::decode_from_slice(payload, CONFIG)?;
    match payload.len() - used {
        0 => Ok(record),
        trailing => Err(CodecError::Trailing(trailing)),
    }
}

//! Frames: one message, bincode-encoded, at most [`FRAME_MAX`] bytes.

use bincode::{Decode, Encode};
use thiserror::Error;

use crate::codec::CONFIG;
use crate::limits::FRAME_MAX;

/// Why bytes are not a frame.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Larger than a frame may be.
    #[error("a frame has at most {FRAME_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// It does not decode.
    #[error("malformed frame")]
    Malformed(#[from] bincode::error::DecodeError),
    /// Bytes were left over.
    #[error("{0} bytes too many after the message")]
    Trailing(usize),
}

/// Encodes a message into `buffer`, which is cleared first.
pub fn encode<T: Encode>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    buffer.clear();
    bincode::encode_into_std_write(message, buffer, CONFIG).expect("encoding into memory cannot fail");
    if buffer.len() > FRAME_MAX { Err(FrameError::TooLong(buffer.len())) } else { Ok(()) }
}

/// Decodes a message; all of `bytes` must be used.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, FrameError> {
    if bytes.len() > FRAME_MAX {
        return Err(FrameError::TooLong(bytes.len()));
    }
    let (message, used) = bincode::decode_from_slice(bytes, CONFIG)?;
    match bytes.len() - used {
        0 => Ok(message),
        trailing => Err(FrameError::Trailing(trailing)),
    }
}

//! A piece of a file as the body of a request: read when it is sent, a chunk at a time, and again when it is sent
//! again.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use address_map::sums;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_types::base64;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::task::JoinHandle;

/// What is read at once, bytes; a body holds one such chunk and hyper another.
const CHUNK: u64 = 512 * 1024;

/// See the module.
struct FileSlice {
    file: Arc<OwnedFd>,
    rest: Range<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

/// The bytes `range` of a file as a body that can be sent more than once.
pub(super) fn file_slice(file: Arc<OwnedFd>, range: Range<u64>) -> ByteStream {
    ByteStream::new(SdkBody::retryable(move || {
        SdkBody::from_body_1_x(FileSlice { file: file.clone(), rest: range.clone(), reading: None })
    }))
}

impl Body for FileSlice {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            return Poll::Ready(None);
        }
        let chunk = this.rest.start..this.rest.end.min(this.rest.start + CHUNK);
        let reading = this.reading.get_or_insert_with(|| {
            let (file, chunk) = (this.file.clone(), chunk.clone());
            tokio::task::spawn_blocking(move || read_exactly(&file, &chunk))
        });
        let outcome = ready!(Pin::new(reading).poll(context));
        this.reading = None;
        Poll::Ready(Some(outcome.map_err(io::Error::other).flatten().map(|bytes| {
            this.rest.start = chunk.end;
            Frame::data(bytes)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.end - self.rest.start)
    }
}

/// What is known of bytes before they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// Their CRC-32, in base64 as it is sent with them.
    pub(super) crc32: String,
    /// Their [`sums`].
    pub(super) sums: Vec<u64>,
}

/// Measures the bytes `range` of a file. Reading twice costs little: the file has just been written, and a checksum
/// behind the bytes is understood by few endpoints.
pub(super) async fn measure(file: Arc<OwnedFd>, range: Range<u64>) -> io::Result<Measured> {
    let measured = tokio::task::spawn_blocking(move || {
        let (mut crc32, mut made, mut at) = (crc32fast::Hasher::new(), Vec::new(), range.start);
        while at < range.end {
            // Whole pieces: each chunk begins where one does.
            let chunk = at..range.end.min(at + CHUNK);
            let bytes = read_exactly(&file, &chunk)?;
            crc32.update(&bytes);
            made.extend(sums::of_all(&bytes));
            at = chunk.end;
        }
        Ok(Measured { crc32: base64::encode(crc32.finalize().to_be_bytes()), sums: made })
    });
    measured.await.map_err(io::Error::other).flatten()
}

/// Reads the bytes `range` of a file to memory, and measures them there: what is sent and what was measured are the same
/// even if the file changes meanwhile.
pub(super) async fn read(file: Arc<OwnedFd>, range: Range<u64>) -> io::Result<(Bytes, Measured)> {
    let read = tokio::task::spawn_blocking(move || {
        let bytes = read_exactly(&file, &range)?;
        let crc32 = base64::encode(crc32fast::hash(&bytes).to_be_bytes());
        let measured = Measured { crc32, sums: sums::of_all(&bytes) };
        Ok((bytes, measured))
    });
    read.await.map_err(io::Error::other).flatten()
}

/// Reads a range that the file must have.
fn read_exactly(file: &OwnedFd, range: &Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = range.start + bytes.len() as u64;
        let spare = rustix::buffer::spare_capacity(&mut bytes);
        match rustix::io::pread(file, spare, at) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_piece_is_measured_alike_in_both_ways() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"xx123456789xx").unwrap();
        // The check value of CRC-32 is 0xCBF43926.
        file.set_len(3 * CHUNK).unwrap();
        let file: Arc<OwnedFd> = Arc::new(file.into());
        let measured = measure(file.clone(), 2..11).await.unwrap();
        assert_eq!(measured, Measured { crc32: "y/Q5Jg==".to_owned(), sums: vec![sums::of(b"123456789")] });
        let range = CHUNK..3 * CHUNK - 5;
        let (bytes, read) = read(file.clone(), range.clone()).await.unwrap();
        assert_eq!(bytes.len() as u64, range.end - range.start);
        assert_eq!(read, measure(file, range).await.unwrap());
    }

    #[tokio::test]
    async fn a_piece_is_read_exactly_and_again() {
        let mut file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..3 * CHUNK).map(|i| (i % 251) as u8).collect();
        file.write_all(&data).unwrap();
        let file: Arc<OwnedFd> = Arc::new(file.into());
        let body = SdkBody::retryable({
            let file = file.clone();
            move || {
                SdkBody::from_body_1_x(FileSlice {
                    file: file.clone(),
                    rest: 5..2 * CHUNK + 9,
                    reading: None,
                })
            }
        });
        let again = body.try_clone().unwrap();
        for body in [body, again] {
            assert_eq!(body.content_length(), Some(2 * CHUNK + 4));
            let read = ByteStream::new(body).collect().await.unwrap().to_vec();
            assert!(read == data[5..usize::try_from(2 * CHUNK + 9).unwrap()]);
        }
        let beyond = file_slice(file, 0..3 * CHUNK + 1);
        assert!(beyond.collect().await.is_err(), "a file that is too short is not sent as if it were whole");
    }
}

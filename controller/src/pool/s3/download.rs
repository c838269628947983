//! Downloading an object into a file: ranges in parallel, each taken up again where it broke off.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use tokio::task::JoinSet;

use super::client::time_for;
use super::error::classify;
use super::presign::range_header;
use super::{S3Error, S3Pool};

/// Bytes of one request.
const RANGE: u64 = 8 << 20;
/// Requests of one download at the same time.
const RANGES_AT_ONCE: usize = 4;
/// What is gathered before it is written, bytes.
const WRITE_AT_ONCE: usize = 1 << 20;
/// Answers that may break off before a range is given up.
const BROKEN_MAX: u32 = 4;
/// Pause after the first of them; the next are longer.
const PAUSE: Duration = Duration::from_millis(100);

impl S3Pool {
    /// Writes bytes of an object to the same place of a file. `etag` and `size`: what the object must be.
    ///
    /// # Errors
    /// [`S3Error::Changed`], [`S3Error::NotFound`]: it is not that object any more. The file may have been written to
    /// in part.
    pub async fn download(
        &self,
        key: &str,
        etag: &str,
        size: u64,
        range: Range<u64>,
        into: Arc<OwnedFd>,
    ) -> Result<(), S3Error> {
        let time = time_for(range.end.saturating_sub(range.start), self.settings.patience);
        let whole = self.download_all(key, etag, size, range, into);
        let ended = tokio::time::timeout(time, whole).await;
        ended.unwrap_or(Err(S3Error::Timeout))
    }

    async fn download_all(
        &self,
        key: &str,
        etag: &str,
        size: u64,
        wanted: Range<u64>,
        into: Arc<OwnedFd>,
    ) -> Result<(), S3Error> {
        let mut running = JoinSet::new();
        for start in wanted.clone().step_by(usize::try_from(RANGE).unwrap_or(usize::MAX)) {
            if running.len() >= RANGES_AT_ONCE {
                joined(&mut running).await?;
            }
            let range = start..wanted.end.min(start + RANGE);
            let piece = Piece {
                pool: self.clone(),
                key: key.to_owned(),
                etag: etag.to_owned(),
                size,
                into: into.clone(),
            };
            running.spawn(async move { piece.fetch(range).await });
        }
        while !running.is_empty() {
            joined(&mut running).await?;
        }
        Ok(())
    }
}

async fn joined(running: &mut JoinSet<Result<(), S3Error>>) -> Result<(), S3Error> {
    match running.join_next().await {
        Some(Ok(outcome)) => outcome,
        _ => Err(S3Error::Unavailable("a download was given up".to_owned())),
    }
}

/// Where a range comes from and goes to.
struct Piece {
    pool: S3Pool,
    key: String,
    etag: String,
    size: u64,
    into: Arc<OwnedFd>,
}

impl Piece {
    async fn fetch(&self, range: Range<u64>) -> Result<(), S3Error> {
        let _turn = self.pool.turn().await;
        let (mut rest, mut broken) = (range, 0);
        while !rest.is_empty() {
            match self.fetch_some(&mut rest).await {
                Ok(()) => {}
                Err(error) if error.may_pass() && broken < BROKEN_MAX => {
                    broken += 1;
                    tokio::time::sleep(PAUSE * 2u32.pow(broken) + jitter()).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes one request; `rest` is what is still missing afterwards.
    async fn fetch_some(&self, rest: &mut Range<u64>) -> Result<(), S3Error> {
        let pool = &self.pool;
        let get =
            pool.client.get_object().bucket(&pool.settings.bucket).key(pool.settings.full_key(&self.key));
        let get = get.range(range_header(rest)?).if_match(&self.etag);
        let mut answer = get.send().await.map_err(|error| classify(&error))?;
        self.check(&answer, rest)?;
        let mut gathered = Vec::with_capacity(WRITE_AT_ONCE);
        loop {
            let next = tokio::time::timeout(pool.settings.patience, answer.body.next()).await;
            match next.map_err(|_| S3Error::Timeout)? {
                Some(Ok(bytes)) => gathered.extend_from_slice(&bytes),
                Some(Err(_)) => return Err(S3Error::Unavailable("a connection broke".to_owned())),
                None => break,
            }
            if gathered.len() >= WRITE_AT_ONCE {
                gathered = self.write(gathered, rest).await?;
            }
        }
        self.write(gathered, rest).await?;
        match rest.is_empty() {
            true => Ok(()),
            false => Err(S3Error::Unavailable("an answer was too short".to_owned())),
        }
    }

    /// Whether an answer is about the bytes that were asked for.
    fn check(&self, answer: &GetObjectOutput, range: &Range<u64>) -> Result<(), S3Error> {
        let promised = format!("bytes {}-{}/{}", range.start, range.end - 1, self.size);
        let same = answer.e_tag().is_none_or(|etag| bare(etag) == bare(&self.etag));
        // All of an object may come without saying which part that is.
        let all = *range == (0..self.size) && answer.content_range().is_none();
        let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
        let right = (all || answer.content_range() == Some(promised.as_str()))
            && length.is_none_or(|length| length == range.end - range.start);
        if same && right { Ok(()) } else { Err(S3Error::Changed) }
    }

    /// Writes what is next; the emptied buffer.
    async fn write(&self, bytes: Vec<u8>, rest: &mut Range<u64>) -> Result<Vec<u8>, S3Error> {
        let length = bytes.len() as u64;
        if length > rest.end - rest.start {
            return Err(S3Error::Changed);
        }
        let (into, at) = (self.into.clone(), rest.start);
        let written = tokio::task::spawn_blocking(move || write_all(&into, bytes, at)).await;
        let mut buffer = written.map_err(io::Error::other).flatten().map_err(S3Error::Staging)?;
        rest.start += length;
        buffer.clear();
        Ok(buffer)
    }
}

fn write_all(file: &OwnedFd, bytes: Vec<u8>, mut at: u64) -> io::Result<Vec<u8>> {
    let mut left = &bytes[..];
    while !left.is_empty() {
        match rustix::io::pwrite(file, left, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => (left, at) = (&left[written..], at + written as u64),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// An ETag without its quotes.
pub(super) fn bare(etag: &str) -> &str {
    etag.trim_matches('"')
}

/// A random part of a pause, so that those who failed together do not come back together.
fn jitter() -> Duration {
    let mut byte = [0];
    // Without randomness there is no jitter.
    let _ = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
    PAUSE * u32::from(byte[0]) / 256
}

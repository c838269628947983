//! An object that is being made of a file: in parts, of which those that are complete go ahead while the file is still
//! being written, and those that are as they were are copied from the object before; a small one all at once.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use address_map::sums;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::body::{file_slice, measure};
use super::client::{time_for, with_time_for};
use super::download::bare;
use super::error::classify;
use super::multipart::{Multipart, PART_MIN, Sent, part_size, parts};
use super::upload::{MARK, WHOLE_MAX, if_new, no_etag, random_hex, signed};
use super::{S3Error, S3Pool, Stored};

/// From how many bytes on parts go ahead: what ends before would not have needed them.
const AHEAD_FROM: u64 = WHOLE_MAX + PART_MIN;
/// Parts of one upload that are on their way at the same time.
const PARTS_AT_ONCE: usize = 4;
/// The same for an upload of which parts are copied: the endpoint's work, not ours.
const COPIES_AT_ONCE: usize = 16;

/// A new object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// What it is.
    pub stored: Stored,
    /// The [`sums`] of its bytes.
    pub sums: Vec<u64>,
}

/// The object before, for an upload that changes a part of it.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its key.
    pub key: String,
    /// Its ETag.
    pub etag: String,
    /// Which bytes are the same in the new one, in order. The file need not have them.
    pub same: Vec<Range<u64>>,
    /// Its sums, where they are known.
    pub sums: Vec<u64>,
}

impl Base {
    /// Whether all of these bytes are the same.
    pub fn has(&self, part: &Range<u64>) -> bool {
        self.same.iter().any(|same| same.start <= part.start && part.end <= same.end)
    }

    /// The sums of a part, [`sums::UNKNOWN`] where there are none.
    fn sums_of(&self, part: &Range<u64>) -> Vec<u64> {
        let pieces = part.start / sums::PIECE..part.end.div_ceil(sums::PIECE);
        pieces.map(|piece| self.sums.get(piece as usize).copied().unwrap_or(sums::UNKNOWN)).collect()
    }
}

/// See the module.
pub struct NewObject {
    pool: S3Pool,
    key: String,
    mark: String,
    file: Arc<OwnedFd>,
    /// How far the file has been written in order, bytes.
    written: AtomicU64,
    /// Somebody sends parts ahead, or has given that up.
    ahead: AtomicBool,
    /// No more go ahead: the file is complete.
    closing: AtomicBool,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    upload: Option<Multipart>,
    /// Those that went ahead, in order.
    sent: Vec<Sent>,
}

impl S3Pool {
    /// Begins to make an object of a file. Nothing is sent yet.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new_object(&self, key: &str, file: Arc<OwnedFd>) -> Result<Arc<NewObject>, S3Error> {
        Ok(Arc::new(NewObject {
            pool: self.clone(),
            key: key.to_owned(),
            mark: random_hex().map_err(S3Error::Staging)?,
            file,
            written: AtomicU64::new(0),
            ahead: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            parts: Mutex::default(),
        }))
    }

    /// Uploads the first `size` bytes of a file as a new object.
    ///
    /// # Errors
    /// As [`NewObject::finish`].
    pub async fn upload(&self, key: &str, file: Arc<OwnedFd>, size: u64) -> Result<Uploaded, S3Error> {
        self.new_object(key, file)?.finish(size, None).await
    }
}

impl NewObject {
    /// So many bytes from the beginning have been written one after the other: parts that are complete may go ahead, on
    /// `runtime`. Should they be written once more, they are sent once more.
    pub fn advance(self: &Arc<Self>, runtime: &Handle, written: u64) {
        self.written.fetch_max(written, Ordering::AcqRel);
        if written < AHEAD_FROM || self.ahead.swap(true, Ordering::AcqRel) {
            return;
        }
        let object = self.clone();
        runtime.spawn(async move { object.send_ahead().await });
    }

    async fn send_ahead(&self) {
        loop {
            let mut parts = self.parts.lock().await;
            match self.send_some(&mut parts).await {
                Ok(true) => {}
                Ok(false) => {
                    // Whoever has written more at this very moment is not heard; the next one is.
                    self.ahead.store(false, Ordering::Release);
                    return;
                }
                Err(error) => {
                    // All is sent when the file is closed, and then somebody waits to be told. Nobody tries before.
                    tracing::debug!(error = &error as &dyn std::error::Error, "parts cannot go ahead");
                    return;
                }
            }
        }
    }

    /// Sends the next few parts that are complete; whether there were any.
    async fn send_some(&self, parts: &mut Parts) -> Result<bool, S3Error> {
        let first = parts.sent.len() as u64;
        let complete = self.written.load(Ordering::Acquire) / PART_MIN;
        if self.closing.load(Ordering::Acquire) || complete <= first {
            return Ok(false);
        }
        let upload = self.begun(&mut parts.upload, 0).await?;
        let next = first..complete.min(first + PARTS_AT_ONCE as u64);
        let send = |index: u64| {
            let range = index * PART_MIN..(index + 1) * PART_MIN;
            upload.send_copied(part_number(index), self.file.clone(), range)
        };
        // One that is missing would be taken for sent: none of these, then.
        let sent = try_join_all(next.map(send)).await?;
        parts.sent.extend(sent);
        Ok(true)
    }

    async fn begun<'a>(
        &self,
        upload: &'a mut Option<Multipart>,
        size: u64,
    ) -> Result<&'a mut Multipart, S3Error> {
        match upload {
            Some(begun) => Ok(begun),
            None => Ok(upload.insert(Multipart::begin(&self.pool, &self.key, size, &self.mark).await?)),
        }
    }

    /// Makes the object of the first `size` bytes of the file; of what [`Base::same`] says, of the object before.
    ///
    /// # Errors
    /// [`S3Error::Exists`]: there is another object under this key (seen only where the endpoint honours conditional
    /// writes). [`S3Error::Changed`]: the object before is not what it was. All others: nothing can be said about the
    /// object, except that it is not there in part.
    pub async fn finish(&self, size: u64, base: Option<&Base>) -> Result<Uploaded, S3Error> {
        self.closing.store(true, Ordering::Release);
        let mut sums = Vec::new();
        let sent = async {
            match size {
                0..=WHOLE_MAX => self.put_whole(size, &mut sums).await,
                _ => self.put_parts(size, base, &mut sums).await,
            }
        };
        let unsure = |error| self.pool.what_came_of(&self.key, size, &self.mark, error);
        let stored = match timeout(time_for(size, self.pool.settings.patience), sent).await {
            Ok(Ok(etag)) if bare(&etag).is_empty() => {
                unsure(S3Error::Unavailable("a new object is not there".to_owned())).await?
            }
            Ok(Ok(etag)) => Stored { etag: self.pool.etag_for_use(&etag), size },
            // The answer may have been lost, or an attempt before this one may have done it.
            Ok(Err(error)) => unsure(error).await?,
            Err(_) => unsure(S3Error::Timeout).await?,
        };
        Ok(Uploaded { stored, sums })
    }

    async fn put_whole(&self, size: u64, sums: &mut Vec<u64>) -> Result<String, S3Error> {
        let _turn = self.pool.turn().await;
        let measured = measure(self.file.clone(), 0..size).await.map_err(S3Error::Staging)?;
        *sums = measured.sums;
        let request = self
            .pool
            .put(&self.key)
            .set_checksum_crc32(self.pool.compares_checksums().then_some(measured.crc32))
            .metadata(MARK, &self.mark)
            .content_length(signed(size)?)
            .body(file_slice(self.file.clone(), 0..size))
            .customize()
            .config_override(with_time_for(size, self.pool.settings.patience))
            .disable_payload_signing();
        let stored = request.send().await.map_err(|error| if_new(classify(&error)))?;
        stored.e_tag.ok_or_else(no_etag)
    }

    async fn put_parts(
        &self,
        size: u64,
        base: Option<&Base>,
        sums: &mut Vec<u64>,
    ) -> Result<String, S3Error> {
        // Waits for what is on its way ahead.
        let mut ahead = self.parts.lock().await;
        let mut before = std::mem::take(&mut ahead.sent);
        if part_size(size) != PART_MIN {
            // So large that its parts must be larger: those that went ahead are given back.
            before.clear();
            ahead.upload = None;
        }
        let upload = self.begun(&mut ahead.upload, size).await?;
        let (sender, before) = (&*upload, &before);
        let each = (0..).zip(parts(size)).map(|(index, range)| {
            let done = before.get(index as usize);
            self.send_part(sender, part_number(index), range, base, done)
        });
        let at_once = if base.is_some() { COPIES_AT_ONCE } else { PARTS_AT_ONCE };
        let all: Vec<Sent> = stream::iter(each).buffered(at_once).try_collect().await?;
        *sums = all.iter().flat_map(|sent| &sent.sums).copied().collect();
        if let Some(base) = base.filter(|base| parts(size).any(|part| base.has(&part))) {
            self.pool.must_still_be(&base.key, &base.etag).await?;
        }
        upload.complete(all).await
    }

    /// A part, sent now unless that is not needed.
    async fn send_part(
        &self,
        upload: &Multipart,
        number: i32,
        range: Range<u64>,
        base: Option<&Base>,
        ahead: Option<&Sent>,
    ) -> Result<Sent, S3Error> {
        if let Some(base) = base.filter(|base| base.has(&range)) {
            let sums = base.sums_of(&range);
            return upload.copy(number, (&base.key, &base.etag), range, sums).await;
        }
        if let Some(sent) = ahead.filter(|_| range.end - range.start == PART_MIN) {
            let now = measure(self.file.clone(), range.clone()).await.map_err(S3Error::Staging)?;
            if now.sums == sent.sums {
                return Ok(sent.clone());
            }
        }
        upload.send(number, self.file.clone(), range).await
    }
}

/// The number of the part with this index.
fn part_number(index: u64) -> i32 {
    // There are 10,000 at most; the endpoint refuses more.
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

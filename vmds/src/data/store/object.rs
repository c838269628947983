//! One object that is read: its address while that is valid, and the requests for its bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::sums;
use address_map::wire::{Address, Answer, Call, Source};
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::Shared;
use super::connections::Connections;
use super::fetch::{FetchError, fetch};
use super::reading::{Delivery, Reading};

/// Most blocks of sums kept of one object.
const BLOCKS_MAX: usize = 32;

/// An address, and until when it is used.
struct Signed {
    target: String,
    headers: Vec<(String, String)>,
    /// Some time before the store would refuse it.
    until: Instant,
}

impl Signed {
    fn new(address: Address) -> Self {
        // A request that is on its way when the time is up would be refused.
        let valid = Duration::from_millis(u64::from(address.valid_ms)) * 3 / 4;
        Self { target: address.target, headers: address.headers, until: Instant::now() + valid }
    }
}

/// See the module.
pub(crate) struct Object {
    node: NodeId,
    pool: u32,
    etag: String,
    size: u64,
    signed: Mutex<Signed>,
    /// Held while a new address is asked for, so that it is asked for once.
    renewing: tokio::sync::Mutex<()>,
    reading: Mutex<Reading>,
    /// By block. Empty: there are none.
    sums: Mutex<BTreeMap<u32, Arc<Vec<u64>>>>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object {{ node: {}, pool: {}, size: {} }}", self.node, self.pool, self.size)
    }
}

impl Object {
    pub(super) fn new(node: NodeId, mut address: Address, shared: Arc<Shared>) -> Self {
        let first = std::mem::take(&mut address.sums);
        let sums = if first.is_empty() { BTreeMap::new() } else { BTreeMap::from([(0, Arc::new(first))]) };
        Self {
            node,
            pool: address.pool,
            etag: address.etag.clone(),
            size: address.size,
            reading: Mutex::new(Reading::of(address.size)),
            sums: Mutex::new(sums),
            signed: Mutex::new(Signed::new(address)),
            renewing: tokio::sync::Mutex::default(),
            shared,
        }
    }

    /// Whether an address leads here.
    pub(super) fn is_at(&self, address: &Address) -> bool {
        self.pool == address.pool && self.etag == address.etag && self.size == address.size
    }

    /// Takes over a younger address.
    pub(super) fn renew(&self, address: Address) {
        *self.signed.lock() = Signed::new(address);
    }

    /// The address is of no use any more.
    pub(super) fn expire(&self) {
        self.signed.lock().until = Instant::now();
    }

    /// The inode it belongs to.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Its size, bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Connections that lead to it.
    pub(super) fn connections(&self) -> Arc<Connections> {
        self.shared.connections(self.pool)
    }

    /// What to say to the store, asked for anew when it is too old.
    pub(super) async fn address(&self) -> Result<(String, Vec<(String, String)>), FetchError> {
        if let Some(valid) = self.valid_address() {
            return Ok(valid);
        }
        let _alone = self.renewing.lock().await;
        if let Some(valid) = self.valid_address() {
            return Ok(valid);
        }
        let (answer, answered) = oneshot::channel();
        let call = Call::Lease { node: self.node, write: false, fill: true };
        self.shared.link.call(call, |outcome| {
            // Whoever asked may have given up.
            let _ = answer.send(outcome);
        });
        match answered.await {
            Ok(Ok((Answer::Addressed { source: Source::Address(address), .. }, None)))
                if self.is_at(&address) =>
            {
                self.renew(address);
                self.valid_address().ok_or(FetchError::Expired)
            }
            // The bytes are elsewhere now: whoever asks next is told.
            Ok(Ok(_)) => Err(FetchError::Changed),
            Ok(Err(refusal)) => Err(FetchError::Refused(refusal)),
            Err(_) => Err(FetchError::Refused(Refusal::Io)),
        }
    }

    /// Whether bytes that were loaded are those that were uploaded, as far as anybody knows. They begin where a piece
    /// of the sums does.
    pub(super) async fn prove(&self, start: u64, bytes: &[u8]) -> Result<bool, FetchError> {
        if self.sums.lock().is_empty() {
            return Ok(true);
        }
        let (mut piece, mut rest) = ((start / sums::PIECE) as usize, bytes);
        while !rest.is_empty() {
            let (block, first) = (piece / sums::BLOCK, piece % sums::BLOCK);
            let length = rest.len().min((sums::BLOCK - first) * sums::PIECE as usize);
            if !sums::prove(&self.sums_of(block as u32).await?, first, &rest[..length]) {
                return Ok(false);
            }
            (piece, rest) = (piece + sums::BLOCK - first, &rest[length..]);
        }
        Ok(true)
    }

    async fn sums_of(&self, block: u32) -> Result<Arc<Vec<u64>>, FetchError> {
        if let Some(known) = self.sums.lock().get(&block) {
            return Ok(Arc::clone(known));
        }
        let (answer, answered) = oneshot::channel();
        let call = Call::Sums { node: self.node, etag: self.etag.clone(), block };
        self.shared.link.call(call, |outcome| {
            // Whoever asked may have given up.
            let _ = answer.send(outcome);
        });
        match answered.await {
            Ok(Ok((Answer::Sums(told), None))) => {
                let (told, mut sums) = (Arc::new(told), self.sums.lock());
                // Who reads on needs the younger ones; the first says that there are any.
                while sums.len() >= BLOCKS_MAX {
                    let Some(&oldest) = sums.range(1..).next().map(|(block, _)| block) else { break };
                    sums.remove(&oldest);
                }
                sums.insert(block, Arc::clone(&told));
                Ok(told)
            }
            Ok(Ok(_)) | Err(_) => Err(FetchError::Refused(Refusal::Io)),
            Ok(Err(refusal)) => Err(FetchError::Refused(refusal)),
        }
    }

    fn valid_address(&self) -> Option<(String, Vec<(String, String)>)> {
        let signed = self.signed.lock();
        (Instant::now() < signed.until).then(|| (signed.target.clone(), signed.headers.clone()))
    }

    /// Reads, as far as the object goes. `done` borrows the bytes; it runs here if they are here already.
    pub(crate) fn read(
        self: &Arc<Self>,
        offset: u64,
        size: usize,
        done: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let end = offset.saturating_add(size as u64).min(self.size);
        if offset >= end {
            return done(Ok(&[]));
        }
        let runtime = match self.shared.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return done(Err(error)),
        };
        let may_read_ahead = self.shared.buffered.load(Ordering::Relaxed) < self.shared.buffered_max;
        let (loads, deliveries) = self.reading.lock().want(offset..end, Box::new(done), may_read_ahead);
        for range in loads {
            let length = (range.end - range.start) as usize;
            self.shared.buffered.fetch_add(length, Ordering::Relaxed);
            let object = Arc::clone(self);
            runtime.spawn(async move { object.load(range).await });
        }
        self.deliver(deliveries);
    }

    async fn load(self: Arc<Self>, range: Range<u64>) {
        let start = range.start;
        let loaded = fetch(&self, range).await;
        let deliveries = self.reading.lock().loaded(start, loaded);
        self.deliver(deliveries);
    }

    /// Answers outside of the lock, and counts what is not needed any more.
    fn deliver(&self, (deliveries, dropped): (Vec<Delivery>, usize)) {
        self.shared.buffered.fetch_sub(dropped, Ordering::Relaxed);
        deliveries.into_iter().for_each(Delivery::make);
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let left = self.reading.get_mut().buffered();
        self.shared.buffered.fetch_sub(left, Ordering::Relaxed);
    }
}

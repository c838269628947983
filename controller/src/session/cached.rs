//! Files of an object store that nobody writes, read from the disk cache of their pool.
//!
//! A lease of such a file is a descriptor that reads one version of one object, as an address is one: when somebody begins to
//! write, or the object changes, the controller says so and the lease is asked for again. Before bytes of a chunk are used
//! the VMDS asks for them (`Fill`), which brings and proves them. What finds no room is read with an address.
//!
//! The kernel does not pass such files through: all that is open of an inode would have to use the one file, also who opens it
//! later to write, and then a VMDS would have held a descriptor that changes what others read.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use address_map::error::{MapError, Refusal, Result};
use address_map::ids::NodeId;
use address_map::map::Tree;
use address_map::namespace::{contents, lookup};
use address_map::record::{Inode, Layout, StoredObject};
use address_map::sums;
use address_map::wire::{Answer, Lease, Near, Source as Leads};

use super::addresses::lent;
use super::scope::Scope;
use super::serve::Outcome;
use super::staging::Pace;
use super::written::{FETCHES_MAX, Written, prove};
use super::{DataPlane, Session, io_refusal};
use crate::audit::{Access, Lent};
use crate::lease::{File, LeaseTable, Reads};
use crate::pool::cache::{DiskCache, Fetched, FillError, Proof, Readable, Source};
use crate::pool::s3::S3Error;
use crate::pool::{BackingFile, ObjectStore};

/// How many chunks are on their way for somebody who reads in order, beside the one that is asked for.
const AHEAD: usize = 4;
/// Chunks of all files together that are brought before anybody asks for them.
pub(super) const AHEAD_AT_ONCE: usize = 16;

/// A file whose object a disk cache may have.
pub(super) struct Cached {
    tree: Tree,
    file: File,
    stored: StoredObject,
    store: ObjectStore,
    cache: Arc<DiskCache>,
}

/// Where its bytes come from.
struct FromStore<'a> {
    of: &'a Cached,
    leases: &'a LeaseTable,
}

impl DataPlane {
    /// A file that is read from a disk cache; `None`: it is not, or somebody writes it.
    pub(super) fn cached(&self, session: &Session, node: NodeId) -> Result<Option<Cached>> {
        let scope = self.need_file(session, node)?;
        let inode = lookup::inode(&scope.tree.view(), scope.ino)?;
        let cached = || {
            let (_, _, store) = self.store_of(&inode)?;
            let cache = store.cache.clone()?;
            match &inode.layout {
                Layout::Stored(stored) if !inode.dirty => {
                    let (file, stored) = (scope.file(scope.ino), stored.clone());
                    Some(Cached { file, tree: scope.tree.clone(), stored, store, cache })
                }
                _ => None,
            }
        };
        Ok(cached())
    }

    /// A lease of the file in the disk cache; `None`: it is to be an address. `fill`: bytes are about to be read.
    pub(super) fn lease_cached(
        &self,
        session: &Session,
        scope: &Scope,
        written: &Written<'_>,
        (inode, stored): (&Inode, &StoredObject),
        fill: bool,
    ) -> Result<Option<Outcome>> {
        let Some(cache) = &written.store.cache else { return Ok(None) };
        let (file, holder) = (written.file(), (session.id, scope.node(scope.ino)));
        // An address ends by itself, a descriptor does not: where the owner wants that, it is an address.
        let is_limited = scope.through.as_ref().is_some_and(|(_, granted)| granted.leases.is_some());
        let reads = self.leases.reads(file, holder);
        // Who has an address renews it, and can be given nothing else for it.
        if is_limited || reads == Reads::Resumed || reads == by_address(stored) {
            return Ok(None);
        }
        // First: from now on it stays.
        self.leases.set_reads(file, holder, Reads::Cache);
        let found = match cache.find(file, stored) {
            Ok(None) if !fill => {
                self.leases.set_reads(file, holder, Reads::Unknown);
                let attr = self.present(file, inode);
                let source = Leads::Unfilled;
                return Ok(Some(Outcome::unchanged(Answer::Addressed { attr, source })));
            }
            Ok(None) => cache.make(file, stored, &|file| self.leases.is_cached(file)),
            found => found,
        };
        let Some(Readable { descriptor, tag, chunk }) = found.unwrap_or_else(|error| unusable(cache, &error))
        else {
            return Ok(None);
        };
        if !scope.is_own() {
            // Looked at again: it may have been taken back meanwhile.
            self.scope(session, scope.node(scope.ino))?;
        }
        self.audit.note(Lent {
            object: Some(written.audited(stored)),
            ..lent(session, scope, written.number, Access::Cached)
        });
        let near = Some(Near { tag, chunk, end: stored.size });
        let lease = Lease { write: false, backing: None, floating: true, remote: false, alone: true, near };
        let attr = self.present(file, inode);
        Ok(Some(Outcome::unchanged(Answer::Leased { attr, lease }).with_descriptor(descriptor)))
    }

    /// Bytes are about to be read from a file of the disk cache. If they cannot be there, the lease is to be asked for again,
    /// and is an address.
    pub(super) fn fill_cached(
        self: &Arc<Self>,
        session: &Session,
        (node, tag): (NodeId, u64),
        cached: Cached,
        range: &Range<u64>,
        pace: Pace,
    ) -> Result<Option<Outcome>> {
        if pace == Pace::Quick {
            // Proving takes a disk, bringing a network.
            return Ok(None);
        }
        let cached = Arc::new(cached);
        let source = FromStore { of: &cached, leases: &self.leases };
        let bring = || {
            let Cached { file, stored, cache, .. } = &*cached;
            let (touched, in_order) = cache.touched(*file, stored, tag, range)?;
            if in_order {
                self.bring_ahead(&cached, tag, touched.end);
            }
            for index in touched {
                cache.fill(*file, stored, (tag, index), true, &source)?;
            }
            Ok(())
        };
        match bring() {
            Ok(()) => Ok(Some(Outcome::unchanged(Answer::Done))),
            Err(FillError::UnderWay) => Ok(None),
            Err(FillError::Refused(error)) => Err(error),
            Err(FillError::Gone) => Err(Refusal::Stale.into()),
            Err(FillError::NoRoom) => {
                self.leases.set_reads(cached.file, (session.id, node), by_address(&cached.stored));
                Err(Refusal::Stale.into())
            }
        }
    }

    /// Has the chunks brought that somebody who reads in order asks for next. Nobody waits for it.
    fn bring_ahead(self: &Arc<Self>, cached: &Arc<Cached>, tag: u64, from: usize) {
        let Some(workers) = self.workers.handle() else { return };
        for index in cached.cache.lacks(cached.file, &cached.stored, tag, from, AHEAD) {
            let Ok(turn) = self.ahead.clone().try_acquire_owned() else { return };
            let (plane, cached) = (self.clone(), cached.clone());
            workers.spawn_blocking(move || {
                let source = FromStore { of: &cached, leases: &plane.leases };
                // Whoever asks for it is told what is the matter.
                let _ = cached.cache.fill(cached.file, &cached.stored, (tag, index), false, &source);
                drop(turn);
            });
        }
    }

    /// Removes from the disk caches what the map does not lead to any more: what was replaced or removed while nobody looked;
    /// and what is beyond the bound.
    pub(crate) fn compare_caches(&self) {
        let caches = self.pools.all().into_iter().filter_map(|pool| pool.store.as_ref()?.cache.clone());
        for cache in caches.filter(|cache| cache.is_to_be_compared()) {
            self.compare_cache(&cache);
        }
    }

    /// As [`DataPlane::compare_caches`], of one.
    pub(crate) fn compare_cache(&self, cache: &DiskCache) {
        for file in cache.all() {
            if self.leases.is_cached(file) {
                continue;
            }
            match self.object_in_map(file) {
                // What holds another version is removed by looking for this one.
                Ok(Some(stored)) => drop(cache.has(file, &stored)),
                Ok(None) => cache.remove(file),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    return tracing::warn!(error, "a disk cache cannot be compared with the map");
                }
            }
        }
        cache.keep_bound(&|file| self.leases.is_cached(file));
    }

    /// The object that a file is in, if it is in one.
    fn object_in_map(&self, (tenant, ino): File) -> Result<Option<StoredObject>> {
        let Ok(tree) = self.map.tree(tenant) else { return Ok(None) };
        match lookup::inode(&tree.view(), ino) {
            Ok(Inode { layout: Layout::Stored(stored), .. }) => Ok(Some(stored)),
            Ok(_) | Err(MapError::Refused(Refusal::NotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Source for FromStore<'_> {
    fn fetch(&self, bytes: Range<u64>, into: Arc<OwnedFd>) -> Result<Proof, Fetched> {
        let Cached { stored: StoredObject { object, etag, size }, store, .. } = self.of;
        let sums = self.of.sums(bytes.start).map_err(Fetched::Refused)?;
        for _ in 0..FETCHES_MAX {
            let (wanted, file) = (bytes.clone(), into.clone());
            let asked = async |s3: &crate::pool::s3::S3Pool| {
                s3.download(&object.key, etag, *size, wanted, file).await
            };
            store.runtime.wait_for(asked(&store.s3)).map_err(of_store)?;
            if prove(&into, &sums, first_of_block(bytes.start), &bytes).map_err(Fetched::Not)? {
                return Ok(if sums.is_empty() { Proof::None } else { Proof::Given });
            }
            tracing::warn!(key = object.key, "the object store sent damaged bytes");
        }
        let damaged = io::Error::new(io::ErrorKind::InvalidData, "the object store sends damaged bytes");
        Err(Fetched::Refused(io_refusal(damaged)))
    }

    fn proves(&self, file: &BackingFile, bytes: Range<u64>) -> Result<bool, MapError> {
        let sums = self.of.sums(bytes.start)?;
        // What cannot be read is as good as damaged.
        Ok(prove(file, &sums, first_of_block(bytes.start), &bytes).unwrap_or(false))
    }

    fn is_leased(&self, file: File) -> bool {
        self.leases.is_cached(file)
    }
}

impl Cached {
    /// The block of sums that a chunk lies in: chunks are smaller, and blocks begin where chunks do.
    fn sums(&self, offset: u64) -> Result<Vec<u64>> {
        let (view, ino) = (self.tree.view(), self.file.1);
        let sums = contents::sums(&view, ino, (offset / BLOCK_BYTES) as u32)?;
        // Looked at afterwards: no object ever comes back, so they were those of this one.
        match lookup::inode(&view, ino)?.layout {
            Layout::Stored(stored) if stored == self.stored => Ok(sums),
            _ => Err(Refusal::Stale.into()),
        }
    }
}

/// Bytes that one block of sums is about.
const BLOCK_BYTES: u64 = sums::BLOCK as u64 * sums::PIECE;

/// Where the bytes begin that the block of sums of an offset is about.
fn first_of_block(offset: u64) -> u64 {
    offset - offset % BLOCK_BYTES
}

/// Reading this version with addresses.
pub(super) fn by_address(stored: &StoredObject) -> Reads {
    let mut hasher = DefaultHasher::new();
    (&stored.object, &stored.etag).hash(&mut hasher);
    Reads::Address(hasher.finish())
}

fn of_store(error: S3Error) -> Fetched {
    match error {
        S3Error::Staging(error) => Fetched::Not(error),
        error => Fetched::Refused(io_refusal(error.into())),
    }
}

fn unusable(cache: &DiskCache, error: &io::Error) -> Option<Readable> {
    let (error, directory) = (error as &dyn std::error::Error, cache.directory().display());
    tracing::warn!(error, %directory, "the disk cache cannot be used; bytes are read from the store");
    None
}

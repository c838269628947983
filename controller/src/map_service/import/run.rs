//! Listing a bucket in the order of its keys and making its objects files, a transaction at a time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use address_map::error::{MapError, Refusal};
use address_map::ids::Ino;
use address_map::map::Tree;
use address_map::name::Name;
use address_map::namespace::adopt::{self, New};
use address_map::record::{Adopted, Progress};
use address_map::shard::Txn;

use super::{Target, out_of_quota};
use crate::import::names::{self, Step};
use crate::import::{BATCH, Own, file_of};
use crate::map_service::pools::s3_failed;
use crate::map_service::{PlaneServices, map_failed};
use crate::pool::ObjectStore;
use crate::pool::s3::{Found, Span};
use crate::services::{ImportSummary, Listener, ServiceError};
use crate::session::Touched;

/// Between two reports of how far it has come.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// An import that is being made.
pub(super) struct Import<'a> {
    services: &'a PlaneServices,
    tree: &'a Tree,
    store: &'a ObjectStore,
    target: Target,
    own: Own,
    tell: Listener<'a, ImportSummary>,
    so_far: ImportSummary,
    reported: Instant,
}

/// What one transaction has made.
#[derive(Default)]
struct Batch {
    /// Directories that are known, by what is above their entries.
    directories: HashMap<Vec<Name>, Ino>,
    /// New entries of directories that were there before.
    touched: Vec<Touched>,
    /// Directories that are new.
    fresh: HashSet<Ino>,
    made: ImportSummary,
}

impl<'a> Import<'a> {
    pub(super) fn new(
        services: &'a PlaneServices,
        tree: &'a Tree,
        store: &'a ObjectStore,
        target: Target,
        own: Own,
        tell: Listener<'a, ImportSummary>,
    ) -> Self {
        let (so_far, reported) = (ImportSummary::default(), Instant::now());
        Self { services, tree, store, target, own, tell, so_far, reported }
    }

    pub(super) fn run(mut self) -> Result<ImportSummary, ServiceError> {
        let Progress::Importing { after } = self.target.adopted.progress.clone() else {
            return Ok(self.so_far);
        };
        let span = Span { prefix: self.target.adopted.prefix.clone(), after, by_directory: false };
        let mut page = None;
        loop {
            let findings = self.store.runtime.wait_for(self.store.s3.browse(&span, page));
            let findings = findings.map_err(s3_failed)?;
            self.so_far.skipped += findings.unreadable;
            for batch in findings.objects.chunks(BATCH) {
                self.make(batch)?;
                if !self.report() {
                    return Ok(self.so_far);
                }
            }
            page = findings.next;
            if page.is_none() {
                break;
            }
        }
        self.still_there(self.tree.write(|txn| adopt::advance(txn, self.target.ino, Progress::Complete)))?;
        self.so_far.complete = true;
        Ok(self.so_far)
    }

    /// Makes files of some objects, and notes that this was done.
    fn make(&mut self, found: &[Found]) -> Result<(), ServiceError> {
        let made = self.tree.write(|txn| {
            match adopt::adopted(txn, self.target.ino)? {
                Some(Adopted { progress: Progress::Importing { .. }, .. }) => {}
                _ => return Err(Refusal::NotFound.into()),
            }
            let mut batch = Batch::default();
            for found in found {
                self.add(txn, &mut batch, found)?;
            }
            let after = found.last().map(|found| found.key.clone());
            adopt::advance(txn, self.target.ino, Progress::Importing { after })?;
            Ok(batch)
        });
        let batch = self.still_there(made)?;
        self.services.plane.tell_mounts(self.tree, &batch.touched);
        let (so_far, made) = (&mut self.so_far, batch.made);
        so_far.files += made.files;
        so_far.directories += made.directories;
        so_far.bytes += made.bytes;
        so_far.skipped += made.skipped;
        Ok(())
    }

    fn add(&self, txn: &mut Txn<'_>, batch: &mut Batch, found: &Found) -> Result<(), MapError> {
        if self.own.has(&found.key) {
            batch.made.skipped += 1;
            return Ok(());
        }
        let adopted = &self.target.adopted;
        let place = names::place(&found.key[adopted.prefix.len()..], found.stored.size);
        let (mut path, mut at) = (Vec::with_capacity(place.directories.len()), self.target.ino);
        for step in &place.directories {
            path.push(step.names.first().cloned().ok_or(Refusal::Invalid)?);
            at = match batch.directories.get(&path) {
                Some(&known) => known,
                None => {
                    let ino = self.add_entry(txn, batch, (at, step), &New::Directory)?;
                    batch.directories.insert(path.clone(), ino);
                    ino
                }
            };
        }
        if let Some(step) = &place.file {
            self.add_entry(txn, batch, (at, step), &file_of(adopted.pool, found))?;
        }
        Ok(())
    }

    fn add_entry(
        &self,
        txn: &mut Txn<'_>,
        batch: &mut Batch,
        (parent, step): (Ino, &Step),
        new: &New,
    ) -> Result<Ino, MapError> {
        let added = adopt::add(txn, parent, &step.names, &self.target.adopted, new)?;
        if !added.is_new {
            return Ok(added.ino);
        }
        match new {
            New::File { stored, .. } => {
                batch.made.files += 1;
                batch.made.bytes += stored.size;
            }
            New::Directory | New::Unlisted(_) => {
                batch.made.directories += 1;
                batch.fresh.insert(added.ino);
            }
        }
        // What nobody could look into before need not be forgotten.
        if !batch.fresh.contains(&parent) {
            batch.touched.push(Touched::Entry { parent, name: added.name });
        }
        Ok(added.ino)
    }

    fn still_there<T>(&self, made: Result<T, MapError>) -> Result<T, ServiceError> {
        made.map_err(|error| match error {
            MapError::Refused(Refusal::Quota) => out_of_quota(&self.so_far),
            MapError::Refused(Refusal::NotFound) => {
                ServiceError::Conflict("the directory of the import was removed meanwhile".to_owned())
            }
            MapError::Refused(Refusal::Exists | Refusal::NotDirectory) => ServiceError::Conflict(
                "something else has the names of an object in the directory of the import; move it away and import again"
                    .to_owned(),
            ),
            other => map_failed(other),
        })
    }

    /// Tells how far it has come, and finds out whether anybody listens.
    fn report(&mut self) -> bool {
        if self.reported.elapsed() < REPORT_EVERY {
            return true;
        }
        self.reported = Instant::now();
        (self.tell)(self.so_far)
    }
}

//! Directories whose entries are objects of a bucket: listed when somebody first looks into them.
//!
//! **Guarantees**: nobody sees a part of such a directory; of many that look at once one listing serves all, on a thread
//! that is nobody's; who looks waits for it as for anything that takes as long as a network, and not for ever. One that broke off is begun
//! again by whoever looks next, and adds nothing twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_map::error::{MapError, Refusal, Result};
use address_map::ids::Ino;
use address_map::map::Tree;
use address_map::namespace::adopt::{self, New};
use address_map::namespace::replay::Origin;
use address_map::record::{Adopted, Progress};
use address_map::shard::Txn;
use address_map::wire::{Answer, Call, Stale};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::serve::{Asked, Outcome};
use super::staging::WORKING_AFTER;
use super::{DataPlane, Session, SessionId, Touched, io_refusal};
use crate::import::names::{self, Step};
use crate::import::{BATCH, Own, file_of};
use crate::lease::File;
use crate::pool::s3::{Findings, SEPARATOR, Span};

/// Directories listed at the same time; more wait for their turn.
const LISTINGS_MAX: usize = 16;
/// After this time nobody waits for a listing any more; it goes on.
const WAITED_FOR: Duration = Duration::from_secs(120);

/// How a listing has ended.
type Ended = Result<(), Refusal>;

/// A listing that goes on.
#[derive(Clone)]
struct Running {
    since: Instant,
    ended: watch::Receiver<Option<Ended>>,
}

/// The directories that are being listed.
pub(super) struct Listings {
    running: Mutex<HashMap<File, Running>>,
    turns: Arc<Semaphore>,
}

impl Default for Listings {
    fn default() -> Self {
        Self { running: Mutex::default(), turns: Arc::new(Semaphore::new(LISTINGS_MAX)) }
    }
}

impl Running {
    /// Waits until it has ended; `None`: it takes longer than one waits at a time.
    async fn ended(mut self) -> Option<Ended> {
        let ended = tokio::time::timeout(WORKING_AFTER, self.ended.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(ended)) => *ended,
            // Whoever was at it is gone.
            Ok(Err(_)) => Some(Err(Refusal::Io)),
            Err(_) if self.since.elapsed() > WAITED_FOR => Some(Err(Refusal::Busy)),
            Err(_) => None,
        }
    }
}

impl DataPlane {
    /// Has a directory listed, and then carries out what needs its entries.
    pub(super) fn list_then_answer(
        self: &Arc<Self>,
        session: &Arc<Session>,
        asked: Asked,
        directory: File,
        call: Call,
        origin: Option<Origin>,
    ) {
        let (Some(listing), Some(workers)) = (self.listing_of(directory), self.workers.handle()) else {
            return self.reply(session, asked, Err(Refusal::Io.into()));
        };
        // What only looks may be asked again by a successor of the VMDS at once.
        let counted = call.changes();
        if counted {
            session.elsewhere.begin();
        }
        let (plane, session) = (self.clone(), session.clone());
        workers.spawn(async move {
            let ended = listing.ended().await;
            let answering = session.clone();
            // Nothing is known to be done until the listing has ended, so whoever asks again is not asking twice.
            let answered = tokio::task::spawn_blocking(move || match ended {
                Some(Ok(())) => plane.answer_then_reply(&answering, asked, call, origin),
                Some(Err(refusal)) => plane.reply(&answering, asked, Err(refusal.into())),
                None => plane.reply(&answering, asked, Ok(Outcome::unchanged(Answer::Pending))),
            });
            if answered.await.is_err() {
                tracing::error!("a request was given up");
            }
            if counted {
                session.elsewhere.end();
            }
        });
    }

    /// Does what needs the entries of directories, which are listed first if need be. Blocks.
    pub(crate) fn with_listed<T>(self: &Arc<Self>, work: impl Fn() -> Result<T>) -> Result<T> {
        /// Directories on a way that may all be unlisted.
        const DIRECTORIES_MAX: usize = 4096;
        for _ in 0..DIRECTORIES_MAX {
            match work() {
                Err(MapError::Unlisted(tenant, ino)) => self.list_now((tenant, ino))?,
                done => return done,
            }
        }
        Err(Refusal::Busy.into())
    }

    fn list_now(self: &Arc<Self>, directory: File) -> Result<()> {
        let (Some(listing), Some(workers)) = (self.listing_of(directory), self.workers.handle()) else {
            return Err(Refusal::Io.into());
        };
        let deadline = Instant::now() + WAITED_FOR;
        while Instant::now() < deadline {
            if let Some(ended) = workers.block_on(listing.clone().ended()) {
                return ended.map_err(Into::into);
            }
        }
        Err(Refusal::Busy.into())
    }

    /// The listing of a directory, which is begun if nobody is at it. `None`: the system gives no threads.
    fn listing_of(self: &Arc<Self>, directory: File) -> Option<Running> {
        let workers = self.workers.handle()?;
        let mut running = self.listings.running.lock();
        if let Some(listing) = running.get(&directory) {
            return Some(listing.clone());
        }
        let (sender, ended) = watch::channel(None);
        let listing = Running { since: Instant::now(), ended };
        running.insert(directory, listing.clone());
        let plane = self.clone();
        workers.spawn(async move {
            let turn = plane.listings.turns.clone().acquire_owned().await;
            let lister = plane.clone();
            let listed = tokio::task::spawn_blocking(move || lister.list_directory(directory));
            let ended = listed.await.unwrap_or_else(|_| Err(Refusal::Io.into()));
            drop(turn);
            if let Err(error) = &ended {
                let (tenant, ino) = directory;
                tracing::warn!(%tenant, %ino, error = error as &dyn std::error::Error, "a directory cannot be listed");
            }
            plane.listings.running.lock().remove(&directory);
            // Whoever has waited may have given up.
            sender.send_replace(Some(ended.map_err(|error| error.refusal())));
        });
        Some(listing)
    }

    /// Lists a directory, unless that was done meanwhile.
    fn list_directory(&self, (tenant, ino): File) -> Result<()> {
        let tree = self.map.tree(tenant)?;
        let Some(adopted) = adopt::adopted(&tree.view(), ino)? else { return Ok(()) };
        if adopted.progress != Progress::Unlisted {
            return Ok(());
        }
        let pool = self.pools.get(adopted.pool).map_err(io_refusal)?;
        let store = pool.store.clone().ok_or(Refusal::NotSupported)?;
        let own = Own::of(store.s3.settings(), &self.pools.all());
        let span = Span { prefix: adopted.prefix.clone(), after: None, by_directory: true };
        let (mut page, mut skipped) = (None, 0);
        loop {
            let findings = store.wait(async |s3| s3.browse(&span, page).await).map_err(io_refusal)?;
            let (entries, left_out) = entries(&adopted, &findings, &own);
            skipped += left_out;
            for batch in entries.chunks(BATCH) {
                tree.write(|txn| batch.iter().try_for_each(|entry| add_all(txn, ino, &adopted, entry)))?;
            }
            page = findings.next;
            if page.is_none() {
                break;
            }
        }
        if skipped > 0 {
            tracing::warn!(%tenant, prefix = adopted.prefix, skipped, "objects were left out: they are VMDS's own, or their keys are no text");
        }
        tree.write(|txn| adopt::listed(txn, ino))?;
        // The number of its sub-directories is known now.
        self.tell_mounts(&tree, &[Touched::Inode { ino, data: false }]);
        Ok(())
    }

    /// Makes all mounts of a tenant forget all they know of its own tree, and waits until they have.
    pub(crate) fn forget_everything(&self, tree: &Tree) {
        let sessions = self.hub.sessions_of(tree.tenant());
        let everything = vec![Stale::Slot(address_map::ids::Slot::OWN)];
        self.hub.push_and_wait(sessions.iter().map(|session| (session.id, everything.clone())).collect());
    }

    /// Makes all mounts that may have looked forget what was changed, and waits until they have.
    pub(crate) fn tell_mounts(&self, tree: &Tree, touched: &[Touched]) {
        /// Longer than an invalidation can take.
        const TOLD_WITHIN: Duration = Duration::from_secs(5);
        let nobody = (SessionId(0), address_map::ids::Slot::OWN);
        let (done, told) = std::sync::mpsc::channel();
        let done = Box::new(move || {
            // Whoever waits may have given up.
            let _ = done.send(());
        });
        self.hub.invalidate(nobody, tree.tenant(), touched, Default::default(), done);
        // It ends by itself.
        let _ = told.recv_timeout(TOLD_WITHIN);
    }
}

/// Something to add to a directory: the steps that lead to it, and what it is.
type Entry = (Vec<Step>, New);

/// What a page of a list makes of a directory, and how much of it was left out.
fn entries(adopted: &Adopted, findings: &Findings, own: &Own) -> (Vec<Entry>, u64) {
    let (mut entries, mut skipped) = (Vec::new(), findings.unreadable);
    for found in &findings.objects {
        if own.has(&found.key) {
            skipped += 1;
            continue;
        }
        let place = names::place(&found.key[adopted.prefix.len()..], found.stored.size);
        // Without a file it stands for this directory.
        if let Some(file) = place.file {
            let steps = place.directories.into_iter().chain([file]).collect();
            entries.push((steps, file_of(adopted.pool, found)));
        }
    }
    // Behind the objects, that these have their names if both have the same.
    for directory in &findings.directories {
        if own.has(directory) {
            skipped += 1;
            continue;
        }
        let part = &directory[adopted.prefix.len()..];
        let part = part.strip_suffix(SEPARATOR).unwrap_or(part);
        entries.push((names::directory(part), New::Unlisted(directory.clone())));
    }
    (entries, skipped)
}

fn add_all(txn: &mut Txn<'_>, directory: Ino, adopted: &Adopted, (steps, new): &Entry) -> Result<()> {
    let Some((last, above)) = steps.split_last() else { return Ok(()) };
    let mut at = directory;
    for step in above {
        at = adopt::add(txn, at, &step.names, adopted, &New::Directory)?.ino;
    }
    adopt::add(txn, at, &last.names, adopted, new).map(drop)
}

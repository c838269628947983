//! Requests about files of an object store. What can be answered at once is; what takes as long as the network is done
//! on other threads, while the session goes on.

use std::ops::Range;
use std::sync::Arc;

use address_map::attr::AttrChange;
use address_map::error::{MapError, Refusal, Result};
use address_map::ids::{Ino, NodeId, TenantId};
use address_map::map::Tree;
use address_map::namespace::replay::{self, Origin};
use address_map::namespace::{attr, contents, lookup, object, xattr};
use address_map::record::{Change, Inode, Layout};
use address_map::wire::{Answer, Call, Lease, Near, Source};

use tokio::runtime::Handle;

use super::addresses::lent;
use super::elsewhere::UnderWay;
use super::scope::Scope;
use super::serve::{Asked, Outcome};
use super::staging::{Pace, Progress, WORKING_AFTER, look_at};
use super::written::Written;
use super::{DataPlane, Session, Touched, io_refusal};
use crate::audit::Access;
use crate::lease::Reads;
use crate::pool::s3::S3Error;
use crate::pool::set_mtime;

impl DataPlane {
    /// Answers a call about the bytes of a file of an object store. A call about something else is left to the caller,
    /// and `unanswered` with it.
    pub(super) fn answer_stored(
        self: &Arc<Self>,
        session: &Arc<Session>,
        asked: Asked,
        call: &Call,
        origin: Option<Origin>,
    ) -> Option<Asked> {
        let Some(node) = about_bytes(call).filter(|node| self.is_stored(session, *node)) else {
            return Some(asked);
        };
        let outcome = match (self.carry_out(session, node, call, origin, Pace::Quick), self.workers.handle())
        {
            (Ok(None), Some(workers)) => {
                self.carry_out_elsewhere(workers, session, asked, node, call.clone(), origin);
                return None;
            }
            (Ok(None), None) => Err(Refusal::Io.into()),
            (Ok(Some(outcome)), _) => Ok(outcome),
            (Err(error), _) => Err(error),
        };
        self.reply(session, asked, outcome);
        None
    }

    /// Whether the bytes of a file belong to an object store.
    fn is_stored(&self, session: &Session, node: NodeId) -> bool {
        let inode = self.scope(session, node).and_then(|scope| lookup::inode(&scope.tree.view(), scope.ino));
        inode.is_ok_and(|inode| self.store_of(&inode).is_some())
    }

    fn carry_out_elsewhere(
        self: &Arc<Self>,
        workers: &Handle,
        session: &Arc<Session>,
        asked: Asked,
        node: NodeId,
        call: Call,
        origin: Option<Origin>,
    ) {
        let (plane, session) = (self.clone(), session.clone());
        // What only looks may be asked again at once: a successor of the VMDS does not wait for it.
        let looks =
            matches!(call, Call::Fill { write: false, .. } | Call::Connect { .. } | Call::Sums { .. });
        let under_way = (!looks).then(|| UnderWay::begin(&session));
        let (worker, asking) = (plane.clone(), session.clone());
        let mut work = Box::pin(async move {
            // Readers that wait for a slow store are not to take all threads.
            let turn = match &call {
                Call::Fill { write: false, .. } => asking.fills.clone().acquire_owned().await.ok(),
                _ => None,
            };
            let carried = tokio::task::spawn_blocking(move || {
                let outcome = worker.carry_out(&asking, node, &call, origin, Pace::Slow);
                drop((under_way, turn));
                outcome
            });
            carried.await
        });
        workers.spawn(async move {
            let outcome = match tokio::time::timeout(WORKING_AFTER, &mut work).await {
                Ok(Ok(Ok(Some(outcome)))) => Ok(outcome),
                Ok(Ok(Err(error))) => Err(error),
                // It goes on; whoever asks again waits for it.
                Ok(Ok(Ok(None))) | Err(_) => Ok(Outcome::unchanged(Answer::Pending)),
                Ok(Err(_)) => Err(Refusal::Io.into()),
            };
            plane.reply(&session, asked, outcome);
        });
    }

    /// Carries out a call at a pace; `None`: it takes longer.
    fn carry_out(
        self: &Arc<Self>,
        session: &Session,
        node: NodeId,
        call: &Call,
        origin: Option<Origin>,
        pace: Pace,
    ) -> Result<Option<Outcome>> {
        match call {
            Call::Lease { write, fill, .. } => self.lease_stored(session, node, *write, *fill, pace),
            Call::Flush { .. } => self.flush_stored(session, node, pace),
            Call::CloseWrite { .. } => self.close_stored(session, node, pace),
            Call::Setattr { change, .. } => self.setattr_stored(session, node, change, origin, pace),
            Call::Connect { .. } => self.connect(session, node, pace),
            Call::Wrote { end, .. } => self.send_ahead_stored(session, node, *end),
            Call::Fill { tag, start, end, write, .. } => match self.cached(session, node)? {
                Some(cached) if !*write => {
                    self.fill_cached(session, (node, *tag), cached, &(*start..*end), pace)
                }
                _ => self.fill_stored(session, (node, *tag), *start..*end, *write, pace),
            },
            Call::Sums { etag, block, .. } => self.sums_stored(session, node, etag, *block).map(Some),
            _ => Err(Refusal::Invalid.into()),
        }
    }

    /// Does something with a file that nobody else may do meanwhile.
    fn alone<T>(
        &self,
        session: &Session,
        node: NodeId,
        write: bool,
        pace: Pace,
        work: impl FnOnce(&Scope, &Written<'_>, &Inode, &mut Progress) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut scope = self.need_file(session, node)?;
        if write {
            scope = scope.writable()?;
        }
        let file = scope.file(scope.ino);
        let done = self.staging.alone(file, pace, |progress| {
            let inode = lookup::inode(&scope.tree.view(), scope.ino)?;
            let written = self.written(&scope.tree, scope.ino, &inode).ok_or(Refusal::NotSupported)?;
            work(&scope, &written, &inode, progress)
        });
        done.unwrap_or(Ok(None))
    }

    fn lease_stored(
        &self,
        session: &Session,
        node: NodeId,
        write: bool,
        fill: bool,
        pace: Pace,
    ) -> Result<Option<Outcome>> {
        let scope = self.need_file(session, node)?;
        // As for any lease: held first, looked at under the shard's writer lock.
        self.leases.hold(scope.file(scope.ino), (session.id, node), write);
        let leased = self.alone(session, node, write, pace, |scope, written, _, progress| {
            // Who believes to be the only writer must learn that it no longer is.
            let mut is_news = write && self.leases.is_written_by_others(scope.file(scope.ino), session.id);
            let inode = if write {
                let before = scope.tree.write(|txn| txn.need_inode(scope.ino))?;
                if !before.dirty {
                    if fill && pace == Pace::Quick && matches!(before.layout, Layout::Stored(_)) {
                        // Nothing is begun that only the next attempt could end, and tell of.
                        return Ok(None);
                    }
                    // A leftover must not be taken for what is being written.
                    written.clear()?;
                    is_news = true;
                }
                scope.tree.write(|txn| {
                    if !scope.is_own() {
                        // What a grantee writes to is no longer the program that was trusted.
                        is_news |= xattr::drop_capability(txn, scope.ino)?;
                    }
                    object::open_for_write(txn, scope.ino)
                })?
            } else {
                scope.tree.write(|txn| txn.need_inode(scope.ino))?
            };
            let Some(outcome) =
                self.lease_of(session, scope, written, &inode, (write, fill), progress, pace)?
            else {
                return Ok(None);
            };
            let touched = match is_news {
                true => vec![Touched::Inode { ino: scope.ino, data: false }],
                false => vec![],
            };
            Ok(Some(outcome.touching(scope, touched)))
        });
        if leased.is_err() {
            self.release_lease(session, node);
        }
        leased
    }

    #[expect(clippy::too_many_arguments, reason = "what was asked, and of what")]
    fn lease_of(
        &self,
        session: &Session,
        scope: &Scope,
        written: &Written<'_>,
        inode: &Inode,
        (write, fill): (bool, bool),
        progress: &mut Progress,
        pace: Pace,
    ) -> Result<Option<Outcome>> {
        let addressed = |source| {
            let attr = self.present(scope.file(scope.ino), inode);
            Ok(Some(Outcome::unchanged(Answer::Addressed { attr, source })))
        };
        if !inode.dirty {
            return match &inode.layout {
                Layout::Small { .. } => {
                    let bytes = contents::small(&scope.tree.view(), scope.ino)?;
                    self.audit.note(lent(session, scope, written.number, Access::Bytes));
                    addressed(Source::Inline(bytes))
                }
                Layout::Stored(stored) => {
                    // Another file may have to go for it, and a large one takes long.
                    if written.store.cache.is_some() && fill && pace == Pace::Quick {
                        return Ok(None);
                    }
                    match self.lease_cached(session, scope, written, (inode, stored), fill)? {
                        Some(leased) => Ok(Some(leased)),
                        None => addressed(Source::Address(self.address_of(session, scope, written, stored)?)),
                    }
                }
                _ => addressed(Source::Inline(Vec::new())),
            };
        }
        // What the disk cache has is that of before.
        self.leases.set_reads(written.file(), (session.id, scope.node(scope.ino)), Reads::Unknown);
        let write = write || scope.is_own();
        let descriptor = match written.open(write)? {
            Some(descriptor) => descriptor,
            None if !fill && !matches!(inode.layout, Layout::Object(_)) => {
                return addressed(Source::Unfilled);
            }
            None => {
                let Some(filled) = written.fill(inode, pace)? else { return Ok(None) };
                if !matches!(inode.layout, Layout::Object(_)) {
                    progress.settled = Some(look_at(&filled)?.1);
                }
                if write { filled } else { written.open(false)?.ok_or(Refusal::Io)? }
            }
        };
        let access = if write { Access::Write } else { Access::Read };
        self.audit.note(lent(session, scope, written.number, access));
        let attr = self.present(scope.file(scope.ino), inode);
        let (remote, alone) =
            (descriptor.is_remote(), !self.leases.is_written_by_others(scope.file(scope.ino), session.id));
        let partial = written.partial(&descriptor)?;
        let near =
            partial.map(|partial| Near { tag: partial.tag(), chunk: partial.chunk(), end: partial.end() });
        let lease = Lease { write, backing: None, floating: true, remote, alone, near };
        Ok(Some(Outcome::unchanged(Answer::Leased { attr, lease }).with_descriptor(descriptor)))
    }

    fn flush_stored(&self, session: &Session, node: NodeId, pace: Pace) -> Result<Option<Outcome>> {
        self.alone(session, node, true, pace, |scope, written, before, progress| {
            let Some(inode) = self.bring(written, progress, pace)? else { return Ok(None) };
            // The descriptor is let go of later; what it has written is to be seen when `close` returns.
            let touched = match *before == inode {
                true => vec![],
                false => vec![Touched::Inode { ino: scope.ino, data: true }],
            };
            Ok(Some(Outcome::changed(Answer::Done, scope, touched)))
        })
    }

    fn close_stored(&self, session: &Session, node: NodeId, pace: Pace) -> Result<Option<Outcome>> {
        self.alone(session, node, false, pace, |scope, written, before, progress| {
            let file = scope.file(scope.ino);
            // Nothing of a store is passed through: all that is written comes by the VMDS, which needs a lease for it.
            self.leases.close_write(file, (session.id, node), true);
            let Some(inode) = self.bring(written, progress, pace)? else { return Ok(None) };
            let touched = match *before == inode {
                true => vec![],
                false => vec![Touched::Inode { ino: scope.ino, data: true }],
            };
            Ok(Some(Outcome::changed(Answer::Attr(self.present(file, &inode)), scope, touched)))
        })
    }

    fn setattr_stored(
        &self,
        session: &Session,
        node: NodeId,
        change: &AttrChange,
        origin: Option<Origin>,
        pace: Pace,
    ) -> Result<Option<Outcome>> {
        self.alone(session, node, true, pace, |scope, written, before, progress| {
            let staged = if before.dirty { written.open(true)? } else { None };
            let file = match (staged, change.size) {
                (Some(file), _) => Some(file),
                // Times of what is not being written are in the map alone.
                (None, None) => None,
                (None, Some(0)) => Some(written.make_empty(before.mtime)?),
                (None, Some(_)) => match written.fill(before, pace)? {
                    Some(file) => Some(file),
                    None => return Ok(None),
                },
            };
            if let (Some(file), Some(size)) = (&file, change.size)
                && !written.prepare_cut(file, before, size, pace)?
            {
                return Ok(None);
            }
            let mut inode = scope.tree.write(|txn| {
                if change.size.is_some() && !scope.is_own() {
                    xattr::drop_capability(txn, scope.ino)?;
                }
                let inode = attr::setattr(txn, scope.ino, change)?;
                if file.is_none() {
                    replay::remember(txn, origin, Change::Changed);
                }
                Ok(inode)
            })?;
            if let Some(file) = &file {
                written.resize(file, change.size)?;
                set_mtime(file, inode.mtime).map_err(io_refusal)?;
                let facts = look_at(file)?.0;
                inode = scope.tree.write(|txn| {
                    replay::remember(txn, origin, Change::Changed);
                    object::settle(txn, scope.ino, &facts, true)
                })?;
                if !self.leases.is_written(scope.file(scope.ino)) {
                    inode = match self.bring(written, progress, pace)? {
                        Some(inode) => inode,
                        None => self.bring_later(&scope.tree, scope.ino, inode),
                    };
                }
            }
            let attr = self.present(scope.file(scope.ino), &inode);
            let touched = vec![Touched::Inode { ino: scope.ino, data: change.size.is_some() }];
            Ok(Some(Outcome::changed(Answer::Attr(attr), scope, touched)))
        })
    }

    /// Bytes that may be missing are to be there, or about to be changed.
    fn fill_stored(
        &self,
        session: &Session,
        (node, tag): (NodeId, u64),
        range: Range<u64>,
        write: bool,
        pace: Pace,
    ) -> Result<Option<Outcome>> {
        let done = || Ok(Some(Outcome::unchanged(Answer::Done)));
        self.alone(session, node, write, pace, |_, written, inode, _| {
            // Whoever has a lease from before must not take the holes of a file that nobody fills for bytes.
            let Some(file) = (if inode.dirty { written.open(true)? } else { None }) else {
                return Err(Refusal::Stale.into());
            };
            let Some(mut partial) = written.partial(&file)?.filter(|partial| partial.tag() == tag) else {
                return Err(Refusal::Stale.into());
            };
            let change = write && partial.would_change(&range);
            if partial.missing(&range).is_empty() && !change {
                return done();
            }
            if pace == Pace::Quick {
                return Ok(None);
            }
            written.bring_near(&file, &mut partial, inode, &range)?;
            if change {
                partial.change(&range);
                partial.note(&file).map_err(io_refusal)?;
            }
            done()
        })
    }

    /// Somebody writes from the beginning on: what is complete may go to the store. Only a hint.
    fn send_ahead_stored(&self, session: &Session, node: NodeId, end: u64) -> Result<Option<Outcome>> {
        let begun = self.alone(session, node, true, Pace::Quick, |_, written, inode, progress| {
            self.send_ahead(written, progress, inode, end).map(Some)
        });
        begun.map(|_| Some(Outcome::unchanged(Answer::Done)))
    }

    /// Sums of the object that an address given to this session leads to, while that is the one of the file.
    fn sums_stored(&self, session: &Session, node: NodeId, etag: &str, block: u32) -> Result<Outcome> {
        let scope = self.need_file(session, node)?;
        let view = scope.tree.view();
        match lookup::inode(&view, scope.ino)?.layout {
            Layout::Stored(stored) if stored.etag == etag => {
                let sums = contents::sums(&view, scope.ino, block)?;
                Ok(Outcome::unchanged(Answer::Sums(sums)))
            }
            _ => Err(Refusal::NotFound.into()),
        }
    }

    fn connect(&self, session: &Session, node: NodeId, pace: Pace) -> Result<Option<Outcome>> {
        if pace == Pace::Quick {
            return Ok(None);
        }
        let scope = self.need_file(session, node)?;
        let inode = lookup::inode(&scope.tree.view(), scope.ino)?;
        let (_, _, store) = self.store_of(&inode).ok_or(Refusal::NotSupported)?;
        let socket = match store.runtime.wait_for(store.s3.connect(&session.relays)) {
            Ok(socket) => socket,
            // It has those that it was given, and can use them again.
            Err(S3Error::TooMany) => return Err(Refusal::Busy.into()),
            Err(error) => return Err(io_refusal(error.into())),
        };
        Ok(Some(Outcome::unchanged(Answer::Connected).with_descriptor(socket.into())))
    }

    /// What was written and is not in the store yet goes there on another thread; it is the truth meanwhile.
    fn bring_later(&self, tree: &Tree, ino: Ino, inode: Inode) -> Inode {
        self.sweeper.written(tree.tenant(), ino);
        inode
    }

    /// The last writer of a file is gone without a word. Answers whether its bytes belong to an object store: they are
    /// brought there on another thread.
    pub(super) fn store_when_closed(&self, tree: &Tree, ino: Ino) -> Result<bool> {
        let inode = match lookup::inode(&tree.view(), ino) {
            Ok(inode) => inode,
            Err(MapError::Refused(Refusal::NotFound)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let stored = self.store_of(&inode).is_some();
        if stored && inode.dirty && inode.nlink > 0 {
            self.sweeper.written(tree.tenant(), ino);
        }
        Ok(stored)
    }

    /// Has a file brought to its store whose writers are gone.
    pub(crate) fn bring_elsewhere(self: &Arc<Self>, tenant: TenantId, ino: Ino) {
        let Some(workers) = self.workers.handle() else { return };
        let plane = self.clone();
        workers.spawn_blocking(move || {
            // A tenant that is gone takes its files along.
            let Ok(tree) = plane.map.tree(tenant) else { return };
            plane.recovery.wait();
            match plane.bring_abandoned(&tree, ino) {
                // It was removed: what it has left behind is garbage, and noted as such.
                Ok(()) | Err(MapError::Refused(Refusal::NotFound)) => {}
                Err(error) => {
                    tracing::warn!(%tenant, %ino, error = &error as &dyn std::error::Error, "a file stays in the staging directory for now");
                }
            }
        });
    }

    /// Brings a file to its store whose writers are gone. An error is not the end: the next round tries again.
    fn bring_abandoned(&self, tree: &Tree, ino: Ino) -> Result<()> {
        let file = (tree.tenant(), ino);
        let inode = lookup::inode(&tree.view(), ino)?;
        let Some(written) = self.written(tree, ino, &inode) else { return Ok(()) };
        if self.leases.is_written(file) {
            return Ok(());
        }
        if !inode.dirty {
            let cleared = self.staging.alone(file, Pace::Quick, |_| self.clear_leftover(&written));
            return cleared.unwrap_or(Ok(()));
        }
        let brought =
            self.staging.alone(file, Pace::Slow, |progress| self.bring(&written, progress, Pace::Slow));
        match brought {
            Some(Ok(Some(after))) if after != inode => {
                let touched = [Touched::Inode { ino, data: true }];
                let author = (super::SessionId(0), address_map::ids::Slot::OWN);
                self.hub.invalidate(author, tree.tenant(), &touched, Default::default(), Box::new(|| {}));
                Ok(())
            }
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// The file whose bytes a call is about, if it may be one of an object store.
fn about_bytes(call: &Call) -> Option<NodeId> {
    match call {
        Call::Lease { node, .. }
        | Call::Flush { node }
        | Call::CloseWrite { node }
        | Call::Connect { node }
        | Call::Wrote { node, .. }
        | Call::Fill { node, .. }
        | Call::Sums { node, .. } => Some(*node),
        Call::Setattr { node, change, .. } if change.size.is_some() || change.mtime.is_some() => Some(*node),
        _ => None,
    }
}

//! Requests about the bytes of files: leases, growth, settling, durability.

use std::os::fd::AsFd;

use address_map::attr::{Caller, NewMode};
use address_map::error::{Refusal, Result};
use address_map::ids::{Ino, NodeId, Slot};
use address_map::name::Name;
use address_map::namespace::replay::Origin;
use address_map::namespace::{lookup, object, xattr};
use address_map::record::{Inode, ObjectRef};
use address_map::wire::{Answer, Lease, NodeAttr};

use crate::audit::Access;
use crate::lease::File;
use crate::pool::{BackingFile, set_mtime};

use super::addresses::lent;
use super::scope::Scope;
use super::serve::Outcome;
use super::{DataPlane, Session, Touched, backing_file, io_refusal};

impl DataPlane {
    pub(super) fn create(
        &self,
        session: &Session,
        parent: NodeId,
        name: Name,
        caller: Caller,
        mode: NewMode,
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        let (scope, made) = self.make_open(session, parent, &name, caller, mode, origin)?;
        let (descriptor, lease) = match self.open_lease(session, &scope, made.ino, &made.inode, true, true) {
            Ok(opened) => opened,
            Err(error) => {
                self.unmake(session, &scope, made.ino, &name);
                return Err(error);
            }
        };
        let file = NodeAttr { node: scope.node(made.ino), attr: made.inode.attr() };
        let answer = Answer::Created { file, parent: made.parent.attr(), lease };
        let touched = vec![Touched::Entry { parent: scope.ino, name }];
        Ok(Outcome::changed(answer, &scope, touched).with_descriptor(descriptor))
    }

    pub(super) fn lease(&self, session: &Session, node: NodeId, write: bool) -> Result<Outcome> {
        let mut scope = self.need_file(session, node)?;
        if write {
            scope = scope.writable()?;
        }
        let file = (scope.tree.tenant(), scope.ino);
        // Held first, looked at under the shard's writer lock: an unlink either sees the hold or was there before.
        self.leases.hold(file, (session.id, node), write);
        let (mut was_dirty, mut changed) = (true, false);
        let inode = scope.tree.write(|txn| {
            if write && !scope.is_own() {
                // What a grantee writes to is no longer the program that was trusted.
                changed = xattr::drop_capability(txn, scope.ino)?;
            }
            let inode = txn.need_inode(scope.ino)?;
            was_dirty = inode.dirty;
            if write { object::open_for_write(txn, scope.ino) } else { Ok(inode) }
        });
        let leased = inode.and_then(|inode| {
            let opened = self.open_lease(session, &scope, scope.ino, &inode, write, write && !was_dirty)?;
            Ok((inode, opened))
        });
        let (inode, (descriptor, lease)) = match leased {
            Ok(leased) => leased,
            Err(error) => {
                self.release_lease(session, node);
                return Err(error);
            }
        };
        // Others that trust a copy of the attributes must learn that they are volatile now, and who believes to be the
        // only writer, that it no longer is.
        let news = !was_dirty || changed || (write && !lease.alone);
        let answer = Answer::Leased { attr: self.present(file, &inode), lease };
        let touched = if news { vec![Touched::Inode { ino: scope.ino, data: false }] } else { vec![] };
        Ok(Outcome::changed(answer, &scope, touched).with_descriptor(descriptor))
    }

    /// Opens the backing file of a file already held, with no more rights than the session has.
    pub(super) fn open_lease(
        &self,
        session: &Session,
        scope: &Scope,
        ino: Ino,
        inode: &Inode,
        write: bool,
        became_volatile: bool,
    ) -> Result<(BackingFile, Lease)> {
        let file = scope.file(ino);
        let ObjectRef { pool: number, key } = backing_file(file, inode).ok_or(Refusal::NotSupported)?;
        let pool = self.pools.get(number).map_err(io_refusal)?;
        // A backing file is made when first needed; one that should hold bytes and is missing is an error.
        let create = inode.dirty || inode.size == 0;
        let write = write || scope.is_own();
        let descriptor = match pool.files.open_object(&key, write, create && write) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => pool
                .files
                .open_object(&key, true, true)
                .and_then(|_| pool.files.open_object(&key, write, false)),
            other => other,
        }
        .map_err(io_refusal)?;
        if became_volatile {
            // From now on the backing file tells the time of the last write.
            let mtime = inode.mtime;
            pool.files.with_file(&descriptor, move |file| set_mtime(file, mtime)).map_err(io_refusal)?;
        }
        let floating = pool.store.is_some();
        if floating {
            let access = if write { Access::Write } else { Access::Read };
            self.audit.note(lent(session, scope, number, access));
        }
        let backing = if scope.is_own() && !floating {
            self.backing(session, file, &descriptor, pool.files.passes_through())
        } else {
            None
        };
        let remote = descriptor.is_remote();
        let alone = !self.leases.is_written_by_others(file, session.id);
        Ok((descriptor, Lease { write, backing, floating, remote, alone, near: None }))
    }

    /// The kernel's number for a held file, registered once. One that is registered stays: all that is open uses it.
    fn backing(
        &self,
        session: &Session,
        file: File,
        descriptor: &BackingFile,
        passes_through: bool,
    ) -> Option<u32> {
        let holder = (session.id, NodeId::new(Slot::OWN, file.1));
        if let Some(backing) = self.leases.hold(file, holder, false).backing {
            return Some(backing);
        }
        if !passes_through {
            return None;
        }
        let backing = session.control.register(descriptor.as_fd())?;
        self.leases.set_backing(file, holder, backing);
        Some(backing)
    }

    pub(super) fn close_write(&self, session: &Session, node: NodeId) -> Result<Outcome> {
        let scope = self.need_file(session, node)?;
        let file = (scope.tree.tenant(), scope.ino);
        // The kernel may write to what it passes through.
        self.leases.close_write(file, (session.id, node), false);
        let before = lookup::inode(&scope.tree.view(), scope.ino)?;
        let inode = self.settle_or_later(&scope.tree, scope.ino)?;
        let touched = match before == inode {
            true => vec![],
            false => vec![Touched::Inode { ino: scope.ino, data: true }],
        };
        Ok(Outcome::changed(Answer::Attr(self.present(file, &inode)), &scope, touched))
    }

    pub(super) fn grow(&self, session: &Session, node: NodeId, size: u64) -> Result<Outcome> {
        let scope = self.scope(session, node)?.writable()?;
        scope.tree.write(|txn| object::grow(txn, scope.ino, size))?;
        // Whoever else looks at a volatile file asks the backing file, so nobody needs to be told.
        Ok(Outcome::unchanged(Answer::Done))
    }

    /// Everything about an inode that is to be made durable is in the map, and its backing file's name is durable,
    /// when this returns.
    pub(super) fn prepare_sync(&self, session: &Session, node: NodeId) -> Result<()> {
        let scope = self.scope(session, node)?;
        let inode = lookup::inode(&scope.tree.view(), scope.ino)?;
        let inode = if inode.dirty { self.settle(&scope.tree, scope.ino, None)? } else { inode };
        // Of an object store only what is being written has one.
        if let Some(ObjectRef { pool, key }) = backing_file((scope.tree.tenant(), scope.ino), &inode) {
            self.pools.get(pool).and_then(|pool| pool.files.sync_name(&key)).map_err(io_refusal)?;
        }
        Ok(())
    }
}

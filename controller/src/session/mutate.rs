//! Requests that change names and attributes.

use address_map::attr::{AttrChange, Caller, FileKind, NewMode};
use address_map::error::{Refusal, Result};
use address_map::ids::{Ino, NodeId, Slot, TenantId};
use address_map::map::Tree;
use address_map::name::Name;
use address_map::namespace::rename::{Moved, Place};
use address_map::namespace::replay::{self, Origin};
use address_map::namespace::{attr, create, link, remove, rename, share, xattr};
use address_map::record::{Change, Inode, Layout, ObjectRef};
use address_map::shard::Txn;
use address_map::wire::{Answer, Make, NodeAttr, RenameMode, Stale, ToVmds, XattrMode};

use super::scope::Scope;
use super::serve::Outcome;
use super::{DataPlane, Forgettable, Session, Touched, io_refusal};
use crate::pool::set_mtime;

impl DataPlane {
    pub(super) fn make(
        &self,
        session: &Session,
        (parent, name): (NodeId, Name),
        caller: Caller,
        mode: NewMode,
        what: &Make,
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        let scope = self.scope(session, parent)?.writable()?;
        let made = scope.tree.write(|txn| {
            let made = create::create(txn, scope.ino, &name, caller, mode, what, false)?;
            replay::remember(txn, origin, Change::Made(made.ino));
            Ok(made)
        })?;
        let target = NodeAttr { node: scope.node(made.ino), attr: made.inode.attr() };
        let answer = Answer::Made { target, parent: made.parent.attr() };
        Ok(Outcome::changed(answer, &scope, vec![Touched::Entry { parent: scope.ino, name }]))
    }

    pub(super) fn link(
        &self,
        session: &Session,
        node: NodeId,
        parent: NodeId,
        name: Name,
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        let (source, scope) = self.same_side(session, node, parent)?;
        let made = scope.tree.write(|txn| {
            let made = link::link(txn, source.ino, scope.ino, &name)?;
            replay::remember(txn, origin, Change::Made(made.ino));
            Ok(made)
        })?;
        let target =
            NodeAttr { node: scope.node(made.ino), attr: self.present(scope.file(made.ino), &made.inode) };
        let answer = Answer::Made { target, parent: made.parent.attr() };
        let touched =
            vec![Touched::Entry { parent: scope.ino, name }, Touched::Inode { ino: made.ino, data: false }];
        Ok(Outcome::changed(answer, &scope, touched))
    }

    pub(super) fn unlink(
        &self,
        session: &Session,
        parent: NodeId,
        name: Name,
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        self.remove(session, parent, name, origin, |txn, tenant, parent, name| {
            remove::unlink(txn, parent, name, &|ino| self.leases.is_held((tenant, ino)))
        })
    }

    pub(super) fn rmdir(
        &self,
        session: &Session,
        parent: NodeId,
        name: Name,
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        self.remove(session, parent, name, origin, |txn, _, parent, name| remove::rmdir(txn, parent, name))
    }

    fn remove(
        &self,
        session: &Session,
        parent: NodeId,
        name: Name,
        origin: Option<Origin>,
        remove: impl FnOnce(&mut Txn<'_>, TenantId, Ino, &Name) -> Result<remove::Removed>,
    ) -> Result<Outcome> {
        let scope = self.scope(session, parent)?.writable()?;
        let removed = scope.tree.write(|txn| {
            let removed = remove(txn, scope.tree.tenant(), scope.ino, &name)?;
            replay::remember(txn, origin, Change::Removed(removed.ino, removed.inode.kind));
            Ok(removed)
        })?;
        let forget = self.after_removal(session, &scope, removed.ino, &removed.inode);
        let target = NodeAttr {
            node: scope.node(removed.ino),
            attr: self.present(scope.file(removed.ino), &removed.inode),
        };
        let answer = Answer::Removed { target, parent: removed.parent.attr() };
        let touched = vec![
            Touched::Entry { parent: scope.ino, name },
            Touched::Inode { ino: removed.ino, data: false },
        ];
        Ok(Outcome::changed(answer, &scope, touched).and_forget(forget))
    }

    /// Who still holds a file without a name is told to let go as soon as it can; what nobody holds is deleted. Shares
    /// of what is gone are gone: answers what their grantees' mounts must forget.
    fn after_removal(&self, session: &Session, scope: &Scope, ino: Ino, inode: &Inode) -> Forgettable {
        if inode.nlink > 0 {
            return Forgettable::new();
        }
        let shares_gone = self.withdraw_shares(scope.tree.tenant(), ino);
        if inode.kind != FileKind::File {
            return shares_gone;
        }
        let holders = self.leases.holders((scope.tree.tenant(), ino));
        if holders.is_empty() {
            self.removed_for_good(&scope.tree, ino, inode);
        }
        for (holder, node) in holders.into_iter().filter(|(holder, _)| *holder != session.id) {
            self.hub.tell(holder, &ToVmds::Orphaned { node });
        }
        shares_gone
    }

    /// Takes the entries of all shares of an inode that is gone out of their grantees' trees.
    fn withdraw_shares(&self, owner: TenantId, root: Ino) -> Forgettable {
        let mut forget = Forgettable::new();
        for id in self.grants.rooted_at(owner, root) {
            let Some(grantee) = self.grants.grantee(id) else { continue };
            let dropped =
                self.map.tree(grantee).and_then(|tree| tree.write(|txn| share::drop_injection(txn, id)));
            match dropped {
                Ok(Some((slot, injection))) => {
                    let parent = NodeId::new(Slot::OWN, injection.parent);
                    let stale = [Stale::Entry { parent, name: injection.name }, Stale::Slot(slot)];
                    for session in self.hub.sessions_of(grantee) {
                        forget.entry(session.id).or_default().extend(stale.clone());
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    // What it leads to is refused all the same; only the name stays.
                    tracing::error!(
                        share = id.0,
                        error = &error as &dyn std::error::Error,
                        "cannot withdraw a share"
                    );
                }
            }
        }
        forget
    }

    pub(super) fn rename(
        &self,
        session: &Session,
        from: (NodeId, Name),
        to: (NodeId, Name),
        mode: RenameMode,
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        let (source, scope) = self.same_side(session, from.0, to.0)?;
        let tenant = scope.tree.tenant();
        let in_use = |ino| self.leases.is_held((tenant, ino));
        let from = Place { parent: source.ino, name: &from.1 };
        let to = Place { parent: scope.ino, name: &to.1 };
        let renamed = scope.tree.write(|txn| {
            let renamed = rename::rename(txn, from, to, mode, &in_use)?;
            match renamed.moved {
                Moved::Injected(_) if !scope.is_own() => Err(Refusal::NotFound.into()),
                _ => {
                    let change = Change::Renamed {
                        moved: renamed.moved.entry(),
                        other: renamed.other.as_ref().map(Moved::entry),
                    };
                    replay::remember(txn, origin, change);
                    Ok(renamed)
                }
            }
        })?;
        let mut touched = vec![
            Touched::Entry { parent: from.parent, name: from.name.clone() },
            Touched::Entry { parent: to.parent, name: to.name.clone() },
        ];
        let mut forget = Forgettable::new();
        for moved in [Some(&renamed.moved), renamed.other.as_ref()].into_iter().flatten() {
            if let Moved::Inode(ino, inode) = moved {
                touched.push(Touched::Inode { ino: *ino, data: false });
                forget.extend(self.after_removal(session, &scope, *ino, inode));
            }
        }
        let answer = Answer::Renamed {
            moved: self.moved(session, &scope, &renamed.moved)?,
            other: renamed.other.map(|other| self.moved(session, &scope, &other)).transpose()?,
            parent: renamed.parent.attr(),
            new_parent: renamed.new_parent.attr(),
        };
        Ok(Outcome::changed(answer, &scope, touched).and_forget(forget))
    }

    fn moved(&self, session: &Session, scope: &Scope, moved: &Moved) -> Result<NodeAttr> {
        match moved {
            Moved::Inode(ino, inode) => {
                Ok(NodeAttr { node: scope.node(*ino), attr: self.present(scope.file(*ino), inode) })
            }
            Moved::Injected(slot) => Ok(self.share_root(session, *slot)?.0),
        }
    }

    /// Both nodes, if they lie on the same side of every border and may be changed.
    fn same_side(&self, session: &Session, a: NodeId, b: NodeId) -> Result<(Scope, Scope)> {
        let (a, b) = (self.scope(session, a)?, self.scope(session, b)?);
        if a.slot != b.slot {
            return Err(Refusal::CrossesShare.into());
        }
        Ok((a, b.writable()?))
    }

    pub(super) fn setattr(
        &self,
        session: &Session,
        node: NodeId,
        _caller: Caller,
        change: AttrChange,
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        let scope = self.scope(session, node)?.writable()?;
        let with_object = change.size.is_some() || change.mtime.is_some();
        let mut inode = scope.tree.write(|txn| {
            if change.size.is_some() && !scope.is_own() {
                xattr::drop_capability(txn, scope.ino)?;
            }
            let inode = attr::setattr(txn, scope.ino, &change)?;
            if !(inode.dirty && with_object) {
                replay::remember(txn, origin, Change::Changed);
            }
            Ok(inode)
        })?;
        if inode.dirty && with_object {
            let followed = self.follow_with_object(&scope.tree, scope.ino, &inode, &change, origin);
            inode = followed.inspect_err(|_| self.charge_what_is_there(&scope.tree, scope.ino))?;
        }
        let touched = vec![Touched::Inode { ino: scope.ino, data: change.size.is_some() }];
        Ok(Outcome::changed(Answer::Attr(self.present(scope.file(scope.ino), &inode)), &scope, touched))
    }

    /// A size was charged that the backing file could not take.
    fn charge_what_is_there(&self, tree: &Tree, ino: Ino) {
        if let Err(error) = self.settle(tree, ino, None) {
            // Settled with the next write instead.
            tracing::warn!(%ino, error = &error as &dyn std::error::Error, "cannot take back a change of size");
        }
    }

    /// Carries a change of size or modification time of a volatile file over to its backing file.
    /// Only then is the request carried out, and remembered.
    fn follow_with_object(
        &self,
        tree: &Tree,
        ino: Ino,
        inode: &Inode,
        change: &AttrChange,
        origin: Option<Origin>,
    ) -> Result<Inode> {
        let Layout::Object(ObjectRef { pool, key }) = &inode.layout else { return Ok(inode.clone()) };
        let (size, mtime) = (change.size, inode.mtime);
        let pool = self.pools.get(*pool).map_err(io_refusal)?;
        let change = self.leases.change((tree.tenant(), ino));
        let file = pool.files.open_object(key, true, true).map_err(io_refusal)?;
        let changed = pool.files.with_file(&file, move |file| {
            if let Some(size) = size {
                rustix::fs::ftruncate(file, size)?;
            }
            set_mtime(file, mtime)
        });
        // Until here it counted as a writer. If it has failed the file stays volatile: the change may still come.
        drop(change);
        changed.map_err(io_refusal)?;
        self.settle(tree, ino, origin)
    }

    pub(super) fn setxattr(
        &self,
        session: &Session,
        (node, name): (NodeId, &[u8]),
        caller: Caller,
        value: &[u8],
        mode: XattrMode,
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        let scope = self.scope(session, node)?.writable()?;
        let inode = scope.tree.write(|txn| {
            replay::remember(txn, origin, Change::Changed);
            xattr::set(txn, scope.ino, caller, name, value, mode)
        })?;
        Ok(self.attributes_changed(&scope, &inode))
    }

    pub(super) fn removexattr(
        &self,
        session: &Session,
        node: NodeId,
        name: &[u8],
        origin: Option<Origin>,
    ) -> Result<Outcome> {
        let scope = self.scope(session, node)?.writable()?;
        let inode = scope.tree.write(|txn| {
            replay::remember(txn, origin, Change::Changed);
            xattr::remove(txn, scope.ino, name)
        })?;
        Ok(self.attributes_changed(&scope, &inode))
    }

    fn attributes_changed(&self, scope: &Scope, inode: &Inode) -> Outcome {
        let touched = vec![Touched::Inode { ino: scope.ino, data: false }];
        Outcome::changed(Answer::Attr(self.present(scope.file(scope.ino), inode)), scope, touched)
    }

    /// A file is made and opened in one go; the lease follows in [`DataPlane::lease`].
    pub(super) fn make_open(
        &self,
        session: &Session,
        parent: NodeId,
        name: &Name,
        caller: Caller,
        mode: NewMode,
        origin: Option<Origin>,
    ) -> Result<(Scope, create::Made)> {
        let scope = self.scope(session, parent)?.writable()?;
        let made = scope.tree.write(|txn| {
            let made = create::create(txn, scope.ino, name, caller, mode, &Make::File, true)?;
            self.leases.hold((scope.tree.tenant(), made.ino), (session.id, scope.node(made.ino)), true);
            replay::remember(txn, origin, Change::Made(made.ino));
            Ok(made)
        })?;
        Ok((scope, made))
    }

    /// Removes what was left by a file that could be made but not opened.
    pub(super) fn unmake(&self, session: &Session, scope: &Scope, ino: Ino, name: &Name) {
        let undone = scope.tree.write(|txn| remove::unlink(txn, scope.ino, name, &|_| false));
        if let Err(error) = undone {
            tracing::error!(%ino, error = &error as &dyn std::error::Error, "cannot take back a file that did not open");
        }
        self.leases.release((session.id, scope.node(ino)));
    }
}

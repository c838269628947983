//! Requests that come again: the kernel repeats what a VMDS had read and not answered, and a VMDS repeats what a
//! controller had not answered. What was carried out is answered from what was remembered with the change.

use address_map::attr::{Attr, FileKind, Timestamp};
use address_map::error::Result;
use address_map::ids::{Ino, NodeId};
use address_map::namespace::{lookup, replay};
use address_map::record::{Change, Leads};
use address_map::wire::{Answer, Call, NodeAttr};

use super::scope::Scope;
use super::serve::Outcome;
use super::{DataPlane, Session, Touched};

impl DataPlane {
    /// The answer to a repeated request, if it was carried out before.
    pub(super) fn answer_again(
        &self,
        session: &Session,
        call: &Call,
        unique: u64,
    ) -> Result<Option<Outcome>> {
        let Some((node, new_parent)) = places(call) else { return Ok(None) };
        let scope = self.scope(session, node)?;
        let Some(change) = replay::find(&scope.tree.view(), session.mount, unique)? else { return Ok(None) };
        tracing::debug!(tenant = %session.tenant(), unique, ?change, "answering a repeated request");
        let touched = touched(call);
        if let (Change::Made(ino), Call::Create { .. }) = (change, call) {
            return self.open_again(session, scope, ino, touched).map(Some);
        }
        let parent = |ino| Ok::<_, address_map::MapError>(lookup::inode(&scope.tree.view(), ino)?.attr());
        let answer = match change {
            Change::Made(ino) => {
                Answer::Made { target: self.as_it_is(&scope, ino)?, parent: parent(scope.ino)? }
            }
            Change::Removed(ino, kind) => {
                let target = self.as_it_is(&scope, ino).unwrap_or_else(|_| gone(scope.node(ino), kind));
                Answer::Removed { target, parent: parent(scope.ino)? }
            }
            Change::Renamed { moved, other } => Answer::Renamed {
                moved: self.leads_to(session, &scope, moved)?,
                other: other.map(|other| self.leads_to(session, &scope, other)).transpose()?,
                parent: parent(scope.ino)?,
                new_parent: parent(new_parent.map_or(scope.ino, NodeId::ino))?,
            },
            Change::Changed => Answer::Attr(self.as_it_is(&scope, scope.ino)?.attr),
        };
        Ok(Some(Outcome::changed(answer, &scope, touched)))
    }

    fn open_again(
        &self,
        session: &Session,
        scope: Scope,
        ino: Ino,
        touched: Vec<Touched>,
    ) -> Result<Outcome> {
        let node = scope.node(ino);
        self.leases.hold((scope.tree.tenant(), ino), (session.id, node), true);
        let inode = lookup::inode(&scope.tree.view(), ino)?;
        let (descriptor, lease) = self.open_lease(session, &scope, ino, &inode, true, false)?;
        let file = NodeAttr { node, attr: self.present(scope.file(ino), &inode) };
        let parent = lookup::inode(&scope.tree.view(), scope.ino)?.attr();
        let answer = Answer::Created { file, parent, lease };
        Ok(Outcome::changed(answer, &scope, touched).with_descriptor(descriptor))
    }

    fn as_it_is(&self, scope: &Scope, ino: Ino) -> Result<NodeAttr> {
        let inode = lookup::inode(&scope.tree.view(), ino)?;
        Ok(NodeAttr { node: scope.node(ino), attr: self.present(scope.file(ino), &inode) })
    }

    fn leads_to(&self, session: &Session, scope: &Scope, leads: Leads) -> Result<NodeAttr> {
        match leads {
            Leads::Inode(ino) => {
                Ok(self.as_it_is(scope, ino).unwrap_or_else(|_| gone(scope.node(ino), FileKind::File)))
            }
            Leads::Share(slot) => Ok(self.share_root(session, slot)?.0),
        }
    }
}

/// The node in whose tree a change is made, and the directory that changes where that is another one.
fn places(call: &Call) -> Option<(NodeId, Option<NodeId>)> {
    match call {
        Call::Make { parent, .. }
        | Call::Create { parent, .. }
        | Call::Link { parent, .. }
        | Call::Unlink { parent, .. }
        | Call::Rmdir { parent, .. } => Some((*parent, None)),
        Call::Rename { parent, new_parent, .. } => Some((*parent, Some(*new_parent))),
        Call::Setattr { node, .. } | Call::Setxattr { node, .. } | Call::Removexattr { node, .. } => {
            Some((*node, None))
        }
        _ => None,
    }
}

/// What the change touched: whoever did it may not have lived to tell the others.
fn touched(call: &Call) -> Vec<Touched> {
    match call {
        Call::Make { parent, name, .. }
        | Call::Create { parent, name, .. }
        | Call::Unlink { parent, name }
        | Call::Rmdir { parent, name } => vec![Touched::Entry { parent: parent.ino(), name: name.clone() }],
        Call::Link { node, parent, name } => vec![
            Touched::Entry { parent: parent.ino(), name: name.clone() },
            Touched::Inode { ino: node.ino(), data: false },
        ],
        Call::Rename { parent, name, new_parent, new_name, .. } => vec![
            Touched::Entry { parent: parent.ino(), name: name.clone() },
            Touched::Entry { parent: new_parent.ino(), name: new_name.clone() },
        ],
        Call::Setattr { node, .. } | Call::Setxattr { node, .. } | Call::Removexattr { node, .. } => {
            vec![Touched::Inode { ino: node.ino(), data: true }]
        }
        _ => vec![],
    }
}

/// An inode that is no more: all that is left to say of it is that it has no names.
fn gone(node: NodeId, kind: FileKind) -> NodeAttr {
    let never = Timestamp::default();
    let attr = Attr {
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 0,
        size: 0,
        blocks: 0,
        rdev: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        has_xattrs: false,
        volatile: false,
    };
    NodeAttr { node, attr }
}

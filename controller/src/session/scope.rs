//! The border: which tree a node id leads into, and what the session may do there. Asked for every request, of the
//! grant as it is at that moment.

use std::sync::Arc;

use address_map::error::{Refusal, Result};
use address_map::ids::{Ino, NodeId, ShareId, Slot};
use address_map::map::Tree;
use address_map::namespace::{lookup, share};
use address_map::record::{Entry, Inode, Rights};
use address_map::wire::NodeAttr;

use super::{DataPlane, Session};
use crate::lease::File;
use crate::share::Granted;

/// Where a node id leads, after all checks.
pub(super) struct Scope {
    /// The tree.
    pub tree: Tree,
    /// The inode in it.
    pub ino: Ino,
    /// The slot it is seen under.
    pub slot: Slot,
    /// What may be done.
    pub rights: Rights,
    /// The share it is seen through, if it is one's.
    pub through: Option<(ShareId, Arc<Granted>)>,
}

impl Scope {
    /// The node id of another inode of the same tree.
    pub(super) fn node(&self, ino: Ino) -> NodeId {
        NodeId::new(self.slot, ino)
    }

    /// An inode of the same tree, for tables of files.
    pub(super) fn file(&self, ino: Ino) -> File {
        (self.tree.tenant(), ino)
    }

    /// Refuses changes through a read-only share.
    pub(super) fn writable(self) -> Result<Self> {
        match self.rights {
            Rights::ReadWrite => Ok(self),
            Rights::ReadOnly => Err(Refusal::ReadOnly.into()),
        }
    }

    /// Whether the tree is the session's own.
    pub(super) fn is_own(&self) -> bool {
        self.slot == Slot::OWN
    }
}

impl DataPlane {
    /// Resolves a node id. Everything that may not be known is [`Refusal::NotFound`].
    pub(super) fn scope(&self, session: &Session, node: NodeId) -> Result<Scope> {
        let (slot, ino) = (node.slot(), node.ino());
        if slot == Slot::OWN {
            return Ok(Scope {
                tree: session.tree.clone(),
                ino,
                slot,
                rights: Rights::ReadWrite,
                through: None,
            });
        }
        let (tree, share, granted) = self.border(session, slot)?;
        self.hub.watch(session, slot, (tree.tenant(), ino));
        if !share::contains(&tree.view(), granted.grant.root, ino)? {
            return Err(Refusal::NotFound.into());
        }
        Ok(Scope { tree, ino, slot, rights: granted.grant.rights, through: Some((share, granted)) })
    }

    /// The owner's tree, the share and the grant behind a slot, if it is live.
    fn border(&self, session: &Session, slot: Slot) -> Result<(Tree, ShareId, Arc<Granted>)> {
        let injection = share::injection(&session.tree.view(), slot)?.ok_or(Refusal::NotFound)?;
        let owner = self.map.tree(injection.owner).map_err(|_| Refusal::NotFound)?;
        let granted = self.grants.find(&owner, injection.share)?.ok_or(Refusal::NotFound)?;
        let grant = &granted.grant;
        if !grant.is_live(session.tenant(), self.map.clock().timestamp()) || grant.root != injection.root {
            return Err(Refusal::NotFound.into());
        }
        Ok((owner, injection.share, granted))
    }

    /// What an entry found in `scope` leads to. Shares nested in somebody else's tree do not exist.
    pub(super) fn follow(&self, session: &Session, scope: &Scope, entry: &Entry) -> Result<NodeAttr> {
        match *entry {
            Entry::Inode { ino, .. } => {
                if !scope.is_own() {
                    self.hub.watch(session, scope.slot, (scope.tree.tenant(), ino));
                }
                let inode = lookup::inode(&scope.tree.view(), ino)?;
                Ok(NodeAttr { node: scope.node(ino), attr: self.present(scope.file(ino), &inode) })
            }
            Entry::Injected { slot, .. } if scope.is_own() => {
                self.share_root(session, slot).map(|(found, _)| found)
            }
            Entry::Injected { .. } => Err(Refusal::NotFound.into()),
        }
    }

    /// The root of a share.
    pub(super) fn share_root(&self, session: &Session, slot: Slot) -> Result<(NodeAttr, Inode)> {
        let (tree, _, granted) = self.border(session, slot)?;
        let root = granted.grant.root;
        self.hub.watch(session, slot, (tree.tenant(), root));
        let inode = lookup::inode(&tree.view(), root)?;
        if inode.nlink == 0 {
            return Err(Refusal::NotFound.into());
        }
        Ok((
            NodeAttr { node: NodeId::new(slot, root), attr: self.present((tree.tenant(), root), &inode) },
            inode,
        ))
    }
}

//! Requests that change nothing.

use address_map::attr::FileKind;
use address_map::error::{Refusal, Result};
use address_map::ids::NodeId;
use address_map::limits::LIST_PAGE_BYTES;
use address_map::name::Name;
use address_map::namespace::{list, lookup, xattr};
use address_map::record::Layout;
use address_map::shard::Records;
use address_map::wire::{Answer, ListEntry, Statfs};

use super::{DataPlane, Session, io_refusal};

/// Bytes of a frame that an entry of a listing needs besides its name, generously.
const LIST_ENTRY_OVERHEAD: usize = 96;

impl DataPlane {
    pub(super) fn lookup(&self, session: &Session, parent: NodeId, name: &Name) -> Result<Answer> {
        let scope = self.scope(session, parent)?;
        let entry = lookup::entry(&scope.tree.view(), scope.ino, name)?;
        Ok(Answer::Found(self.follow(session, &scope, &entry)?))
    }

    pub(super) fn getattr(&self, session: &Session, node: NodeId) -> Result<Answer> {
        let scope = self.scope(session, node)?;
        let inode = lookup::inode(&scope.tree.view(), scope.ino)?;
        Ok(Answer::Attr(self.present(scope.file(scope.ino), &inode)))
    }

    pub(super) fn readlink(&self, session: &Session, node: NodeId) -> Result<Answer> {
        let scope = self.scope(session, node)?;
        match lookup::inode(&scope.tree.view(), scope.ino)?.layout {
            Layout::Inline(target) => Ok(Answer::Bytes(target)),
            _ => Err(Refusal::Invalid.into()),
        }
    }

    pub(super) fn list(&self, session: &Session, node: NodeId, after: u64) -> Result<Answer> {
        let scope = self.scope(session, node)?;
        let mut listed = Vec::new();
        let mut bytes = 0;
        let end = list::list(&scope.tree.view(), scope.ino, after, &mut |entry| {
            bytes += entry.name.as_bytes().len() + LIST_ENTRY_OVERHEAD;
            listed.push(entry);
            Ok(bytes < LIST_PAGE_BYTES)
        })?;
        let mut entries = Vec::with_capacity(listed.len());
        for entry in listed {
            // A name that leads nowhere (removed meanwhile, or a share that is gone) is not shown.
            match self.follow(session, &scope, &entry.entry) {
                Ok(node) => entries.push(ListEntry { cookie: entry.cookie, name: entry.name, node }),
                Err(error) if error.refusal() == Refusal::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Answer::Page { entries, end })
    }

    pub(super) fn getxattr(&self, session: &Session, node: NodeId, name: &[u8]) -> Result<Answer> {
        let scope = self.scope(session, node)?;
        Ok(Answer::Bytes(xattr::get(&scope.tree.view(), scope.ino, name)?))
    }

    pub(super) fn listxattr(&self, session: &Session, node: NodeId) -> Result<Answer> {
        let scope = self.scope(session, node)?;
        Ok(Answer::Bytes(xattr::list(&scope.tree.view(), scope.ino)?))
    }

    pub(super) fn statfs(&self, session: &Session, node: NodeId) -> Result<Answer> {
        let scope = self.scope(session, node)?;
        let head = scope.tree.view().tenant_record()?;
        let space = self.pools.get(head.pool).and_then(|pool| pool.space()).map_err(io_refusal)?;
        // What is left is the least of what the quota and the pool leave.
        let left = |quota: Option<u64>, used: u64, free: u64| {
            quota.map_or(free, |q| q.saturating_sub(used).min(free))
        };
        let bytes_free = left(head.quota.bytes, head.usage.bytes, space.free);
        let inodes_free = left(head.quota.inodes, head.usage.inodes, space.inodes_free);
        Ok(Answer::Statfs(Statfs {
            bytes: head.quota.bytes.unwrap_or(head.usage.bytes.saturating_add(space.free)),
            bytes_free,
            inodes: head.quota.inodes.unwrap_or(head.usage.inodes.saturating_add(space.inodes_free)),
            inodes_free,
        }))
    }

    /// Whether a node is a regular file of this session, and where.
    pub(super) fn need_file(&self, session: &Session, node: NodeId) -> Result<super::scope::Scope> {
        let scope = self.scope(session, node)?;
        match lookup::inode(&scope.tree.view(), scope.ino)?.kind {
            FileKind::File => Ok(scope),
            FileKind::Directory => Err(Refusal::IsDirectory.into()),
            _ => Err(Refusal::Invalid.into()),
        }
    }
}

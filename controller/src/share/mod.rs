//! Shares: the grants as they are at this moment, in memory, for the question every foreign request asks.

use std::sync::Arc;

use address_map::error::Result;
use address_map::ids::{Ino, ShareId, TenantId};
use address_map::map::Tree;
use address_map::namespace::share;
use address_map::record::Grant;
use dashmap::DashMap;

/// Grants by share. The owner's shard is the authority; what is here follows each change at once. A grant taken back
/// stays here as taken back: share numbers are never reused.
#[derive(Default)]
pub struct Grants {
    known: DashMap<ShareId, Arc<Grant>>,
    /// The shares of each inode that is the root of some.
    roots: DashMap<(TenantId, Ino), Vec<ShareId>>,
}

impl Grants {
    /// The grant of a share of this owner, if there is one.
    pub fn find(&self, owner: &Tree, id: ShareId) -> Result<Option<Arc<Grant>>> {
        if let Some(grant) = self.known.get(&id) {
            return Ok(Some(grant.clone()));
        }
        let Some(stored) = share::find_grant(&owner.view(), id)? else { return Ok(None) };
        self.note_root(owner.tenant(), stored.root, id);
        // If it was changed meanwhile, the change is here already and wins.
        Ok(Some(self.known.entry(id).or_insert_with(|| Arc::new(stored)).clone()))
    }

    /// The shares whose root is this inode.
    pub fn rooted_at(&self, owner: TenantId, root: Ino) -> Vec<ShareId> {
        self.roots.get(&(owner, root)).map(|shares| shares.clone()).unwrap_or_default()
    }

    /// The grantee of a share that is known here.
    pub fn grantee(&self, id: ShareId) -> Option<TenantId> {
        self.known.get(&id).map(|grant| grant.grantee)
    }

    fn note_root(&self, owner: TenantId, root: Ino, id: ShareId) {
        let mut shares = self.roots.entry((owner, root)).or_default();
        if !shares.contains(&id) {
            shares.push(id);
        }
    }

    /// Follows a change of the owner's record.
    pub fn replace(&self, owner: TenantId, id: ShareId, grant: Grant) {
        self.note_root(owner, grant.root, id);
        self.known.insert(id, Arc::new(grant));
    }
}

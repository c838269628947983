//! Shares: the grants as they are at this moment, in memory, for the question every foreign request asks; and until when
//! what was given out through them leads somewhere.

use std::sync::Arc;
use std::time::SystemTime;

use address_map::error::Result;
use address_map::ids::{Ino, ShareId, TenantId};
use address_map::map::Tree;
use address_map::namespace::share;
use address_map::record::{Grant, LeaseLimit};
use dashmap::DashMap;

/// A grant, and what limits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The owner's record.
    pub grant: Grant,
    /// For how long addresses lead somewhere; `None`: as the pool says.
    pub leases: Option<LeaseLimit>,
}

/// Grants by share. The owner's shard is the authority; what is here follows each change at once. A grant taken back
/// stays here as taken back: share numbers are never reused.
#[derive(Default)]
pub struct Grants {
    known: DashMap<ShareId, Arc<Granted>>,
    /// The shares of each inode that is the root of some.
    roots: DashMap<(TenantId, Ino), Vec<ShareId>>,
    /// When the last address ends that was given out through a share.
    lent: DashMap<ShareId, SystemTime>,
}

impl Grants {
    /// The grant of a share of this owner, if there is one.
    pub fn find(&self, owner: &Tree, id: ShareId) -> Result<Option<Arc<Granted>>> {
        if let Some(grant) = self.known.get(&id) {
            return Ok(Some(grant.clone()));
        }
        let view = owner.view();
        let Some(grant) = share::find_grant(&view, id)? else { return Ok(None) };
        let stored = Granted { grant, leases: share::lease_limit(&view, id)? };
        self.note_root(owner.tenant(), stored.grant.root, id);
        // If it was changed meanwhile, the change is here already and wins.
        Ok(Some(self.known.entry(id).or_insert_with(|| Arc::new(stored)).clone()))
    }

    /// The shares whose root is this inode.
    pub fn rooted_at(&self, owner: TenantId, root: Ino) -> Vec<ShareId> {
        self.roots.get(&(owner, root)).map(|shares| shares.clone()).unwrap_or_default()
    }

    /// The grantee of a share that is known here.
    pub fn grantee(&self, id: ShareId) -> Option<TenantId> {
        self.known.get(&id).map(|granted| granted.grant.grantee)
    }

    fn note_root(&self, owner: TenantId, root: Ino, id: ShareId) {
        let mut shares = self.roots.entry((owner, root)).or_default();
        if !shares.contains(&id) {
            shares.push(id);
        }
    }

    /// Follows a change of the owner's record.
    pub fn replace(&self, owner: TenantId, id: ShareId, granted: Granted) {
        self.note_root(owner, granted.grant.root, id);
        self.known.insert(id, Arc::new(granted));
    }

    /// Notes that an address was given out through a share.
    pub fn lends(&self, id: ShareId, until: SystemTime) {
        let mut last = self.lent.entry(id).or_insert(until);
        *last = until.max(*last);
    }

    /// When the last address ends that this process has given out through a share; `None`: there was none.
    pub fn lent_until(&self, id: ShareId) -> Option<SystemTime> {
        self.lent.get(&id).map(|until| *until)
    }
}

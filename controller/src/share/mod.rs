//! Shares: the grants as they are at this moment, in memory, for the question every foreign request asks.

use std::sync::Arc;

use address_map::error::Result;
use address_map::ids::ShareId;
use address_map::map::Tree;
use address_map::namespace::share;
use address_map::record::Grant;
use dashmap::DashMap;

/// Grants by share. The owner's shard is the authority; what is here follows each change at once. A grant taken back
/// stays here as taken back: share numbers are never reused.
#[derive(Default)]
pub struct Grants {
    known: DashMap<ShareId, Arc<Grant>>,
}

impl Grants {
    /// The grant of a share of this owner, if there is one.
    pub fn find(&self, owner: &Tree, id: ShareId) -> Result<Option<Arc<Grant>>> {
        if let Some(grant) = self.known.get(&id) {
            return Ok(Some(grant.clone()));
        }
        let Some(stored) = share::find_grant(&owner.view(), id)? else { return Ok(None) };
        // If it was changed meanwhile, the change is here already and wins.
        Ok(Some(self.known.entry(id).or_insert_with(|| Arc::new(stored)).clone()))
    }

    /// Follows a change of the owner's record.
    pub fn replace(&self, id: ShareId, grant: Grant) {
        self.known.insert(id, Arc::new(grant));
    }
}

//! The two sides of a share in the map: its name in the grantee's tree, and taking it back.

use std::collections::HashMap;
use std::time::SystemTime;

use address_map::attr::{Caller, FileKind};
use address_map::error::{MapError, Refusal};
use address_map::ids::{Ino, NodeId, ShareId, Slot, TenantId};
use address_map::map::Tree;
use address_map::name::{LogicalPath, Name};
use address_map::namespace::{create, lookup, share};
use address_map::record::{Entry, Injection};
use address_map::shard::Txn;
use address_map::wire::Stale;

use super::{PlaneServices, map_failed};
use crate::logging::chain;
use crate::services::{DroppedShare, GrantOrder, GrantOutcome, Receipt, RevokeOrder, ServiceError};
use crate::session::Replaced;
use crate::share::Granted;

impl PlaneServices {
    pub(super) fn inject(
        &self,
        order: &GrantOrder,
        root: Ino,
        kind: FileKind,
    ) -> Result<Injection, MapError> {
        let grantee = self.plane.map.tree(order.grantee)?;
        let (parents, name) = order.target.split_last().ok_or(Refusal::Exists)?;
        let inject = |txn: &mut Txn<'_>| {
            if let Some((_, there)) = share::injections(txn)?.into_iter().find(|(_, i)| i.share == order.id) {
                return Ok(there);
            }
            let owner = txn.need_inode(Ino::ROOT)?;
            let caller = Caller { uid: owner.uid, gid: owner.gid };
            let parent = create::create_directories(txn, parents, caller)?;
            let injection =
                Injection { share: order.id, owner: order.owner, root, parent, name: name.clone() };
            share::inject(txn, &injection, kind)?;
            Ok(injection)
        };
        self.plane.with_listed(|| grantee.write(inject))
    }

    /// What a path of the owner leads to, if it can be shared.
    pub(super) fn shareable_at(
        &self,
        owner: &Tree,
        path: &LogicalPath,
    ) -> Result<(Ino, FileKind), ServiceError> {
        let found = self.plane.with_listed(|| lookup::walk(&owner.view(), path.names()));
        let (_, entry) = found.map_err(|error| match error.refusal() {
            Refusal::CrossesShare => not_ones_own(path),
            _ => ServiceError::NotFound(format!("there is no {path}")),
        })?;
        match entry {
            Entry::Inode { ino, kind: kind @ (FileKind::File | FileKind::Directory) } => Ok((ino, kind)),
            Entry::Inode { .. } => {
                Err(ServiceError::Invalid(format!("{path} is neither a file nor a directory")))
            }
            Entry::Injected { .. } => Err(not_ones_own(path)),
        }
    }

    /// Tells the grantee's mounts that a name of theirs leads somewhere else now, and waits until they know.
    pub(super) fn announce(
        &self,
        grantee: TenantId,
        slot: Option<Slot>,
        injection: &Injection,
    ) -> (usize, usize) {
        let sessions = self.plane.hub.sessions_of(grantee);
        let parent = NodeId::new(Slot::OWN, injection.parent);
        let mut stale = vec![Stale::Entry { parent, name: injection.name.clone() }];
        stale.extend(slot.map(Stale::Slot));
        let items: HashMap<_, _> = sessions.iter().map(|session| (session.id(), stale.clone())).collect();
        let told = items.len();
        (self.plane.hub.push_and_wait(items), told)
    }

    pub(super) fn path_of(&self, tree: &Tree, injection: &Injection) -> Result<LogicalPath, MapError> {
        path_to(tree, injection.parent, injection.name.clone())
    }

    /// Takes a share back: see [`crate::services::MapService::revoke`].
    pub(super) fn take_back(&self, order: &RevokeOrder) -> Result<Receipt, ServiceError> {
        let owner = self.tree(order.owner)?;
        // The owner's record first: from the moment it is visible every request is refused.
        let revoked = owner.write(|txn| share::revoke(txn, order.id)).map_err(map_failed)?;
        if let Some(grant) = revoked {
            self.plane.grants.replace(order.owner, order.id, Granted { grant, leases: None });
        }
        let dropped = match self.plane.map.tree(order.grantee) {
            Ok(grantee) => grantee.write(|txn| share::drop_injection(txn, order.id)).map_err(map_failed)?,
            Err(_) => None,
        };
        // Both sides, whatever there was to drop: what was taken back once never comes back.
        self.plane.committer.wait_durable().map_err(map_failed)?;
        let mut receipt = Receipt::default();
        if let Some((slot, injection)) = dropped {
            let (forgot, told) = self.announce(order.grantee, Some(slot), &injection);
            let unreached = told.saturating_sub(forgot);
            receipt.mounts_dropped = u32::try_from(forgot).unwrap_or(u32::MAX);
            receipt.mounts_unreached = (0..unreached).map(|_| crate::pool::this_host()).collect();
        }
        if order.hard {
            receipt.processes_replaced = self.replace_every_vmds(order.grantee)?;
        }
        receipt.last_lease_ends = self.last_lease_ends(order.id);
        Ok(receipt)
    }

    /// When the last address that was given out through a share stops working, at the latest.
    fn last_lease_ends(&self, id: ShareId) -> Option<SystemTime> {
        // What a controller before this one has given out ended as late as the pools allow.
        let longest =
            self.plane.pools.all().iter().filter_map(|pool| Some(pool.store.as_ref()?.lease())).max();
        let before = longest.map(|longest| self.plane.started + longest);
        let last = self.plane.grants.lent_until(id).max(before);
        last.filter(|end| *end > SystemTime::now())
    }

    /// Ends every VMDS of a tenant, with every descriptor it was ever given. Answers how many there were.
    fn replace_every_vmds(&self, tenant: TenantId) -> Result<u32, ServiceError> {
        let mut replaced = 0;
        for session in self.plane.hub.sessions_of(tenant) {
            match session.replace_vmds_and_wait() {
                Replaced::Done => replaced += 1,
                Replaced::NoProcess => {}
                Replaced::StillThere => {
                    return Err(ServiceError::Unavailable(
                        "every use is refused, but a process that may hold descriptors has not ended yet"
                            .to_owned(),
                    ));
                }
            }
        }
        Ok(replaced)
    }

    /// Removes a share's name: see [`crate::services::MapService::drop_share`].
    pub(super) fn drop_from_tree(
        &self,
        grantee: TenantId,
        path: &LogicalPath,
    ) -> Result<DroppedShare, ServiceError> {
        let tree = self.tree(grantee)?;
        let found = self.plane.with_listed(|| lookup::walk(&tree.view(), path.names()));
        let (_, entry) = found.map_err(|error| match error.refusal() {
            Refusal::CrossesShare => ServiceError::Invalid(format!(
                "{path} lies inside a share; only a share as a whole can be dropped, by the path of its root"
            )),
            _ => ServiceError::NotFound(format!("there is no {path}")),
        })?;
        let Entry::Injected { share: id, .. } = entry else {
            return Err(ServiceError::Invalid(format!(
                "{path} is not the root of a share from another tenant"
            )));
        };
        let dropped = tree.write(|txn| share::drop_injection(txn, id)).map_err(map_failed)?;
        self.plane.committer.wait_durable().map_err(map_failed)?;
        let (slot, injection) =
            dropped.ok_or_else(|| ServiceError::NotFound(format!("there is no {path} any more")))?;
        let (forgot, _) = self.announce(grantee, Some(slot), &injection);
        Ok(DroppedShare { id, mounts_dropped: u32::try_from(forgot).unwrap_or(u32::MAX) })
    }

    /// Something at the grantee is in the way: the grant is taken back, as nobody can use it.
    pub(super) fn not_injected(
        &self,
        order: &GrantOrder,
        error: &MapError,
    ) -> Result<GrantOutcome, ServiceError> {
        let undo = RevokeOrder { id: order.id, owner: order.owner, grantee: order.grantee, hard: false };
        self.take_back(&undo)?;
        match error.refusal() {
            Refusal::Exists => Ok(GrantOutcome::NameTaken),
            Refusal::Io => Err(ServiceError::Unavailable(chain(error))),
            refusal => Ok(GrantOutcome::Refused(format!("{}: {refusal}", order.target))),
        }
    }
}

/// The path of a name of a directory, found by looking through the directories above.
pub(super) fn path_to(tree: &Tree, parent: Ino, name: Name) -> Result<LogicalPath, MapError> {
    let (mut names, mut at) = (vec![name], parent);
    while at != Ino::ROOT {
        let parent = lookup::inode(&tree.view(), at)?.parent;
        names.push(lookup::name_of(&tree.view(), parent, at)?);
        at = parent;
    }
    names.reverse();
    Ok(LogicalPath::from_names(names))
}

fn not_ones_own(path: &LogicalPath) -> ServiceError {
    ServiceError::Invalid(format!("{path} belongs to a share from another tenant and cannot be shared on"))
}

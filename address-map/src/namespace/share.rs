//! Shares: the grant in the owner's tree, the injection in the grantee's, and the border between them.

use super::{add_entry, entry_key, link, need_directory, take_entry};
use crate::attr::{FileKind, Timestamp};
use crate::error::{Refusal, Result};
use crate::ids::{Ino, ShareId, Slot, TenantId};
use crate::key::{self, Kind};
use crate::limits::{DEPTH_MAX, SLOTS_MAX};
use crate::record::{Entry, Grant, Injection, LeaseLimit};
use crate::shard::{Records, Txn, decode};

/// Writes the owner's side. Granting again with the same number replaces rights and expiry.
pub fn grant(txn: &mut Txn<'_>, share: ShareId, grant: &Grant) -> Result<()> {
    let inode = txn.need_inode(grant.root)?;
    if !matches!(inode.kind, FileKind::File | FileKind::Directory) || inode.nlink == 0 {
        return Err(Refusal::Invalid.into());
    }
    txn.put(key::grant(txn.tenant(), share), grant);
    Ok(())
}

/// Limits for how long addresses lead somewhere that are given out through a share, or leaves that to the pool.
pub fn limit_leases(txn: &mut Txn<'_>, share: ShareId, limit: Option<LeaseLimit>) {
    let key = key::lease_limit(txn.tenant(), share);
    match limit {
        Some(limit) => txn.put(key, &limit),
        None => txn.delete(key),
    }
}

/// The limit of the leases through a share, if it has one.
pub fn lease_limit<R: Records>(owner: &R, share: ShareId) -> Result<Option<LeaseLimit>> {
    owner.record(&key::lease_limit(owner.tenant(), share))
}

/// Marks a grant as taken back; answers it, if it exists.
pub fn revoke(txn: &mut Txn<'_>, share: ShareId) -> Result<Option<Grant>> {
    let key = key::grant(txn.tenant(), share);
    let Some(mut grant) = txn.record::<Grant>(&key)? else { return Ok(None) };
    grant.revoked = true;
    txn.put(key, &grant);
    Ok(Some(grant))
}

/// The grant of a share, if there is one.
pub fn find_grant<R: Records>(owner: &R, share: ShareId) -> Result<Option<Grant>> {
    owner.record(&key::grant(owner.tenant(), share))
}

impl Grant {
    /// Whether `grantee` may use the share at `now`.
    pub fn is_live(&self, grantee: TenantId, now: Timestamp) -> bool {
        !self.revoked && self.grantee == grantee && self.expires.is_none_or(|end| now < end)
    }
}

/// Writes the grantee's side: an entry `name` in `parent` that leads to `root` of `owner`. Injecting a share that is
/// there already answers its slot and changes nothing.
pub fn inject(txn: &mut Txn<'_>, injection: &Injection, kind: FileKind) -> Result<Slot> {
    if let Some((slot, _)) = find_injection(txn, injection.share)? {
        return Ok(slot);
    }
    let mut directory = need_directory(txn, injection.parent)?;
    let key = entry_key(txn, injection.parent, &injection.name)?;
    if txn.entry(&key)?.is_some() {
        return Err(Refusal::Exists.into());
    }
    let slot = free_slot(txn)?;
    let entry = Entry::Injected { share: injection.share, slot, kind };
    add_entry(txn, &mut directory, key, &entry);
    txn.put_inode(injection.parent, &directory);
    txn.put(key::injection(txn.tenant(), slot), injection);
    Ok(slot)
}

/// Removes the grantee's side. Answers what was there.
pub fn drop_injection(txn: &mut Txn<'_>, share: ShareId) -> Result<Option<(Slot, Injection)>> {
    let Some((slot, injection)) = find_injection(txn, share)? else { return Ok(None) };
    let mut directory = need_directory(txn, injection.parent)?;
    let key = entry_key(txn, injection.parent, &injection.name)?;
    let entry = txn.entry(&key)?.ok_or(Refusal::NotFound)?;
    take_entry(txn, &mut directory, key, &entry);
    txn.put_inode(injection.parent, &directory);
    txn.delete(key::injection(txn.tenant(), slot));
    Ok(Some((slot, injection)))
}

/// What is injected at a slot.
pub fn injection<R: Records>(grantee: &R, slot: Slot) -> Result<Option<Injection>> {
    grantee.record(&key::injection(grantee.tenant(), slot))
}

/// All injections of a tenant.
pub fn injections<R: Records>(grantee: &R) -> Result<Vec<(Slot, Injection)>> {
    let mut found = Vec::new();
    grantee.scan_prefix(&key::kind_prefix(grantee.tenant(), Kind::Injection), &mut |key, value| {
        if let Some(slot) = key::parse_injection(key) {
            found.push((slot, decode(key, value)?));
        }
        Ok(true)
    })?;
    Ok(found)
}

fn find_injection<R: Records>(grantee: &R, share: ShareId) -> Result<Option<(Slot, Injection)>> {
    Ok(injections(grantee)?.into_iter().find(|(_, injection)| injection.share == share))
}

/// Slots are given out in order and not reused before all have been used once: a node id of a revoked share does
/// not soon mean something else.
fn free_slot(txn: &mut Txn<'_>) -> Result<Slot> {
    for _ in 0..SLOTS_MAX {
        let head = txn.head()?;
        let slot = Slot(head.next_slot);
        head.next_slot = if slot.0 == SLOTS_MAX { 1 } else { slot.0 + 1 };
        if injection(txn, slot)?.is_none() {
            return Ok(slot);
        }
    }
    Err(Refusal::NoSpace.into())
}

/// Whether `ino` lies in the subtree of `root` (or is `root`). With several names, one inside is enough.
pub fn contains<R: Records>(owner: &R, root: Ino, ino: Ino) -> Result<bool> {
    if ino == root {
        return Ok(true);
    }
    let Some(inode) = owner.inode(ino)? else { return Ok(false) };
    for directory in link::directories(owner, ino, &inode)? {
        if is_ancestor(owner, root, directory)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_ancestor<R: Records>(owner: &R, root: Ino, mut at: Ino) -> Result<bool> {
    for _ in 0..DEPTH_MAX {
        if at == root {
            return Ok(true);
        }
        if at == Ino::ROOT {
            return Ok(false);
        }
        match owner.inode(at)? {
            Some(inode) => at = inode.parent,
            None => return Ok(false),
        }
    }
    Ok(false)
}

//! Objects behind regular files: their addresses, and what happens to them when files are written and deleted.

use crate::attr::{FileKind, Timestamp};
use crate::error::{Refusal, Result};
use crate::ids::{Ino, PoolId, TenantId};
use crate::key;
use crate::record::{Garbage, Inode, Layout, ObjectRef};
use crate::shard::{Records, Txn, decode};

/// Inodes per sub-directory of a pool, as a power of two: neighbours in creation share a directory.
const INODES_PER_GROUP_BITS: u32 = 12;

/// What the keys of all objects of a tenant begin with, as a directory.
pub fn tenant_prefix(tenant: TenantId) -> String {
    format!("{:08x}", tenant.0)
}

/// Whose objects' keys begin with a directory of this name; `None`: nobody's.
pub fn parse_tenant_prefix(name: &str) -> Option<TenantId> {
    let tenant = TenantId(u32::from_str_radix(name, 16).ok()?);
    (tenant_prefix(tenant) == name).then_some(tenant)
}

/// The object of a new file: opaque, unique for ever because inode numbers are never reused.
pub fn address(tenant: TenantId, pool: PoolId, ino: Ino) -> ObjectRef {
    ObjectRef {
        pool,
        key: format!("{}/{:x}/{:x}", tenant_prefix(tenant), ino.0 >> INODES_PER_GROUP_BITS, ino.0),
    }
}

/// The file whose backing file has a key; `None`: it is not one's.
pub fn parse_address(key: &str) -> Option<(TenantId, Ino)> {
    let mut parts = key.split('/');
    let (tenant, _, ino) = (parts.next()?, parts.next()?, parts.next()?);
    let tenant = TenantId(u32::from_str_radix(tenant, 16).ok()?);
    let ino = Ino(u64::from_str_radix(ino, 16).ok()?);
    (address(tenant, PoolId(0), ino).key == key).then_some((tenant, ino))
}

/// Separates the address of a file from what makes each version of its bytes another object.
const VERSION_MARK: char = '.';

/// The object that takes the bytes of a file of an object store: another one with each `version`, which is drawn by lot.
pub fn stored_address(tenant: TenantId, pool: PoolId, ino: Ino, version: u128) -> ObjectRef {
    let ObjectRef { pool, key } = address(tenant, pool, ino);
    ObjectRef { pool, key: format!("{key}{VERSION_MARK}{version:032x}") }
}

/// The file that an object of an object store was made for; `None`: it is not one's.
pub fn parse_stored_address(key: &str) -> Option<(TenantId, Ino)> {
    let (file, version) = key.split_once(VERSION_MARK)?;
    let number = u128::from_str_radix(version, 16).ok()?;
    if format!("{number:032x}") != version {
        return None;
    }
    parse_address(file)
}

/// What the address of an object begins with that nobody here has made; then comes its key in the bucket, whole. No key
/// of ours begins like that.
const ADOPTED_MARK: char = '/';

/// The address of an object that was in a pool's bucket before, under a key of its own.
pub fn adopted_address(pool: PoolId, key: &str) -> ObjectRef {
    ObjectRef { pool, key: format!("{ADOPTED_MARK}{key}") }
}

/// The key in the bucket of an object that was there before; `None`: it is one of ours.
pub fn adopted_key(object: &ObjectRef) -> Option<&str> {
    object.key.strip_prefix(ADOPTED_MARK)
}

/// Whether an address is that of an immutable object that was made here, and not that of a backing file.
pub fn is_stored(object: &ObjectRef) -> bool {
    object.key.contains(VERSION_MARK) && adopted_key(object).is_none()
}

/// What a backing file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackingFacts {
    /// Size, bytes.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Last change of contents. It was set to that of the inode when the file became volatile.
    pub mtime: Timestamp,
}

impl BackingFacts {
    /// The inode of a volatile file as it is at this moment.
    pub fn overlay(&self, inode: &mut Inode) {
        inode.size = self.size;
        inode.blocks = self.blocks;
        if inode.mtime != self.mtime {
            // Written since: that is a change of the inode as well.
            inode.mtime = self.mtime;
            inode.ctime = inode.ctime.max(self.mtime);
        }
    }
}

/// Marks a file as possibly being written: from now on its size and times are those of its object.
pub fn open_for_write(txn: &mut Txn<'_>, ino: Ino) -> Result<Inode> {
    let mut inode = need_file(txn, ino)?;
    if !inode.dirty {
        inode.dirty = true;
        txn.put_inode(ino, &inode);
    }
    Ok(inode)
}

/// Takes over what the object of a volatile file says; `still_open` leaves it volatile.
pub fn settle(txn: &mut Txn<'_>, ino: Ino, facts: &BackingFacts, still_open: bool) -> Result<Inode> {
    let mut inode = need_file(txn, ino)?;
    if !inode.dirty {
        return Ok(inode);
    }
    txn.recharge_fact(inode.size, facts.size)?;
    facts.overlay(&mut inode);
    inode.dirty = still_open;
    txn.put_inode(ino, &inode);
    Ok(inode)
}

/// Charges the quota for a file about to grow to `size` bytes. Never shrinks.
pub fn grow(txn: &mut Txn<'_>, ino: Ino, size: u64) -> Result<()> {
    let mut inode = need_file(txn, ino)?;
    if size > i64::MAX as u64 {
        return Err(Refusal::TooLarge.into());
    }
    if size > inode.size {
        txn.recharge(inode.size, size)?;
        inode.size = size;
        inode.dirty = true;
        txn.put_inode(ino, &inode);
    }
    Ok(())
}

/// Removes an inode that has no name and no user: its record and attributes, and its objects become garbage.
pub fn purge(txn: &mut Txn<'_>, ino: Ino, inode: &Inode) -> Result<()> {
    let tenant = txn.tenant();
    let mut doomed = vec![key::inode(tenant, ino)];
    if inode.has_xattrs {
        collect_keys(txn, &key::xattrs(tenant, ino), &mut doomed)?;
    }
    match &inode.layout {
        Layout::None | Layout::Inline(_) | Layout::Adopted(_) => {}
        Layout::Object(object) => discard(txn, object),
        Layout::Retired(never) => match *never {},
        Layout::Small { .. } | Layout::Stored(_) => {
            super::contents::discard_current(txn, ino, &inode.layout)?;
            if let (true, Some(pool)) = (inode.dirty, inode.layout.pool()) {
                // What was being written is in a backing file.
                discard(txn, &address(tenant, pool, ino));
            }
        }
    }
    doomed.into_iter().for_each(|key| txn.delete(key));
    let head = txn.head()?;
    head.usage.inodes = head.usage.inodes.saturating_sub(1);
    head.usage.bytes = head.usage.bytes.saturating_sub(inode.charged_bytes());
    Ok(())
}

/// Purges an inode that lost its last name while it was open. Answers it, if it was there.
pub fn purge_orphan(txn: &mut Txn<'_>, ino: Ino) -> Result<Option<Inode>> {
    match txn.inode(ino)? {
        Some(inode) if inode.nlink == 0 => {
            purge(txn, ino, &inode)?;
            txn.delete(key::orphan(txn.tenant(), ino));
            Ok(Some(inode))
        }
        _ => Ok(None),
    }
}

/// Every inode that is kept only because somebody had it open.
pub fn orphans<R: Records>(records: &R) -> Result<Vec<Ino>> {
    let mut found = Vec::new();
    records.scan_prefix(&key::kind_prefix(records.tenant(), key::Kind::Orphan), &mut |key, _| {
        found.extend(key::parse_number(key).map(Ino));
        Ok(true)
    })?;
    Ok(found)
}

/// Notes that an object is no longer needed.
pub fn discard(txn: &mut Txn<'_>, object: &ObjectRef) {
    let now = txn.now();
    discard_after(txn, object, now);
}

/// Notes that an object is to be deleted at or after `not_before`, unless [`keep`] is called for it.
pub fn discard_after(txn: &mut Txn<'_>, object: &ObjectRef, not_before: Timestamp) {
    txn.put(key::garbage(txn.tenant(), object), &Garbage { not_before });
}

/// An object that was noted is not to be deleted.
pub fn keep(txn: &mut Txn<'_>, object: &ObjectRef) {
    txn.delete(key::garbage(txn.tenant(), object));
}

/// A piece of the list of objects that are no longer needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Objects that can be deleted.
    pub objects: Vec<ObjectRef>,
    /// Where the next piece begins; `None`: that was all.
    pub next: Option<key::Key>,
}

/// Notes that are looked at for one piece: most of them may be of times to come.
const NOTES_AT_ONCE: usize = 64 * 1024;

/// Up to `most` objects that are no longer needed at `now`. `from`: [`Due::next`] of the piece before.
pub fn garbage<R: Records>(records: &R, now: Timestamp, from: Option<&key::Key>, most: usize) -> Result<Due> {
    let notes = key::kind_prefix(records.tenant(), key::Kind::Garbage);
    let (mut due, mut seen) = (Due::default(), 0);
    records.scan(from.unwrap_or(&notes), key::after_prefix(&notes).as_deref(), &mut |key, value| {
        if due.objects.len() == most || seen == NOTES_AT_ONCE {
            due.next = Some(key::Key::from_slice(key));
            return Ok(false);
        }
        seen += 1;
        if decode::<Garbage>(key, value)?.not_before <= now {
            due.objects.extend(key::parse_garbage(key));
        }
        Ok(true)
    })?;
    Ok(due)
}

/// Notes that an object has been deleted from its pool.
pub fn swept(txn: &mut Txn<'_>, object: &ObjectRef) {
    txn.delete(key::garbage(txn.tenant(), object));
}

pub(super) fn collect_keys(txn: &Txn<'_>, prefix: &[u8], into: &mut Vec<key::Key>) -> Result<()> {
    txn.scan_prefix(prefix, &mut |key, _| {
        into.push(key::Key::from_slice(key));
        Ok(true)
    })
}

pub(super) fn need_file(txn: &Txn<'_>, ino: Ino) -> Result<Inode> {
    let inode = txn.need_inode(ino)?;
    match inode.kind {
        FileKind::File => Ok(inode),
        FileKind::Directory => Err(Refusal::IsDirectory.into()),
        _ => Err(Refusal::Invalid.into()),
    }
}

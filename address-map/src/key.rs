//! Keys of records: `tenant (4) | kind (1) | ...`, big-endian, so that byte order is the order of scans.

use crate::ids::{Ino, MountEpoch, ShareId, Slot, TenantId};
use crate::name::Name;
use crate::record::ObjectRef;

/// A key, ready for an engine.
pub type Key = smallvec::SmallVec<[u8; 48]>;

/// The kinds of records. Their numbers are part of the format; 4 is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// [`crate::record::TenantRecord`]: no further key.
    Tenant = 1,
    /// [`crate::record::Inode`]: ino.
    Inode = 2,
    /// [`crate::record::Entry`]: parent ino, hash of the name, name.
    Entry = 3,
    /// Value of an extended attribute: ino, name.
    Xattr = 5,
    /// [`crate::record::LinkRecord`]: ino, parent ino.
    Link = 6,
    /// [`crate::record::Grant`]: share id.
    Grant = 7,
    /// [`crate::record::Injection`]: slot.
    Injection = 8,
    /// An unlinked inode that somebody has open: ino. No value.
    Orphan = 9,
    /// [`crate::record::Garbage`]: pool, object key.
    Garbage = 10,
    /// [`crate::record::Replay`]: mount, place.
    Replay = 11,
    /// Bytes of a small file: ino.
    Contents = 12,
    /// [`crate::sums`] of an object that has the bytes of a file: ino, block.
    Sums = 13,
    /// [`crate::record::LeaseLimit`]: share id.
    LeaseLimit = 14,
}

fn start(tenant: TenantId, kind: Kind) -> Key {
    let mut key = Key::new();
    key.extend_from_slice(&tenant.0.to_be_bytes());
    key.push(kind as u8);
    key
}

fn push_u64(mut key: Key, number: u64) -> Key {
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Prefix of everything a tenant has.
pub fn tenant_prefix(tenant: TenantId) -> Key {
    Key::from_slice(&tenant.0.to_be_bytes())
}

/// Prefix of all records of a kind of one tenant.
pub fn kind_prefix(tenant: TenantId, kind: Kind) -> Key {
    start(tenant, kind)
}

/// The tenant record.
pub fn tenant(tenant: TenantId) -> Key {
    start(tenant, Kind::Tenant)
}

/// An inode.
pub fn inode(tenant: TenantId, ino: Ino) -> Key {
    push_u64(start(tenant, Kind::Inode), ino.0)
}

/// Prefix of all entries of a directory.
pub fn entries(tenant: TenantId, parent: Ino) -> Key {
    push_u64(start(tenant, Kind::Entry), parent.0)
}

/// Start of the entries of a directory whose cookie is at least `cookie`.
pub fn entries_from(tenant: TenantId, parent: Ino, cookie: u64) -> Key {
    push_u64(entries(tenant, parent), cookie)
}

/// One entry of a directory.
pub fn entry(tenant: TenantId, parent: Ino, cookie: u64, name: &Name) -> Key {
    let mut key = entries_from(tenant, parent, cookie);
    key.extend_from_slice(name.as_bytes());
    key
}

/// The parent, cookie and name in the key of an entry; `None` if it is not one.
pub fn parse_entry(key: &[u8]) -> Option<(Ino, u64, Name)> {
    let (head, name) = key.split_at_checked(21)?;
    if head[4] != Kind::Entry as u8 {
        return None;
    }
    let parent = u64::from_be_bytes(head[5..13].try_into().ok()?);
    let cookie = u64::from_be_bytes(head[13..21].try_into().ok()?);
    Some((Ino(parent), cookie, Name::new(name).ok()?))
}

/// The number right behind the kind (an inode number, share id, ...); `None` if the key is too short.
pub fn parse_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(5..13)?.try_into().ok()?))
}

/// Prefix of all extended attributes of an inode.
pub fn xattrs(tenant: TenantId, ino: Ino) -> Key {
    push_u64(start(tenant, Kind::Xattr), ino.0)
}

/// One extended attribute.
pub fn xattr(tenant: TenantId, ino: Ino, name: &[u8]) -> Key {
    let mut key = xattrs(tenant, ino);
    key.extend_from_slice(name);
    key
}

/// The inode and the name in the key of an extended attribute.
pub fn parse_xattr(key: &[u8]) -> Option<(Ino, &[u8])> {
    Some((Ino(parse_number(key)?), key.get(13..)?))
}

/// Prefix of all link records of an inode.
pub fn links(tenant: TenantId, ino: Ino) -> Key {
    push_u64(start(tenant, Kind::Link), ino.0)
}

/// Names of an inode in one directory.
pub fn link(tenant: TenantId, ino: Ino, parent: Ino) -> Key {
    push_u64(links(tenant, ino), parent.0)
}

/// The directory in the key of a link record.
pub fn parse_link(key: &[u8]) -> Option<(Ino, Ino)> {
    let parent = u64::from_be_bytes(key.get(13..21)?.try_into().ok()?);
    Some((Ino(parse_number(key)?), Ino(parent)))
}

/// A grant of this owner.
pub fn grant(owner: TenantId, share: ShareId) -> Key {
    push_u64(start(owner, Kind::Grant), share.0)
}

/// The limit of leases through a share of this owner.
pub fn lease_limit(owner: TenantId, share: ShareId) -> Key {
    push_u64(start(owner, Kind::LeaseLimit), share.0)
}

/// An injection into this grantee's tree.
pub fn injection(grantee: TenantId, slot: Slot) -> Key {
    let mut key = start(grantee, Kind::Injection);
    key.extend_from_slice(&slot.0.to_be_bytes());
    key
}

/// The slot in the key of an injection.
pub fn parse_injection(key: &[u8]) -> Option<Slot> {
    Some(Slot(u16::from_be_bytes(key.get(5..7)?.try_into().ok()?)))
}

/// Bytes of a small file.
pub fn contents(tenant: TenantId, ino: Ino) -> Key {
    push_u64(start(tenant, Kind::Contents), ino.0)
}

/// Prefix of the sums of a file's object.
pub fn all_sums(tenant: TenantId, ino: Ino) -> Key {
    push_u64(start(tenant, Kind::Sums), ino.0)
}

/// A block of the sums of a file's object.
pub fn sums(tenant: TenantId, ino: Ino, block: u32) -> Key {
    let mut key = all_sums(tenant, ino);
    key.extend_from_slice(&block.to_be_bytes());
    key
}

/// An unlinked inode that is still open.
pub fn orphan(tenant: TenantId, ino: Ino) -> Key {
    push_u64(start(tenant, Kind::Orphan), ino.0)
}

/// An object to delete.
pub fn garbage(tenant: TenantId, object: &ObjectRef) -> Key {
    let mut key = start(tenant, Kind::Garbage);
    key.extend_from_slice(&object.pool.0.to_be_bytes());
    key.extend_from_slice(object.key.as_bytes());
    key
}

/// Prefix of all changes remembered for a mount.
pub fn replays(tenant: TenantId, mount: MountEpoch) -> Key {
    push_u64(start(tenant, Kind::Replay), mount.0)
}

/// One change remembered for a mount.
pub fn replay(tenant: TenantId, mount: MountEpoch, place: u16) -> Key {
    let mut key = replays(tenant, mount);
    key.extend_from_slice(&place.to_be_bytes());
    key
}

/// The object in the key of a garbage record.
pub fn parse_garbage(key: &[u8]) -> Option<ObjectRef> {
    let pool = u32::from_be_bytes(key.get(5..9)?.try_into().ok()?);
    let key = String::from_utf8(key.get(9..)?.to_vec()).ok()?;
    Some(ObjectRef { pool: crate::ids::PoolId(pool), key })
}

/// The first key behind every key that starts with `prefix`; `None` if there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Key> {
    let last = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut end = Key::from_slice(&prefix[..=last]);
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_tenant_kind_and_number() {
        let keys = [
            inode(TenantId(1), Ino(1)),
            inode(TenantId(1), Ino(256)),
            entry(TenantId(1), Ino(1), 5, &Name::new(b"b").unwrap()),
            entry(TenantId(1), Ino(1), 6, &Name::new(b"a").unwrap()),
            entry(TenantId(1), Ino(2), 0, &Name::new(b"a").unwrap()),
            tenant(TenantId(2)),
        ];
        assert!(keys.is_sorted());
        assert_eq!(parse_entry(&keys[3]), Some((Ino(1), 6, Name::new(b"a").unwrap())));
    }

    #[test]
    fn the_end_of_a_prefix_skips_trailing_ff() {
        assert_eq!(after_prefix(&[1, 2]).unwrap().as_slice(), &[1, 3]);
        assert_eq!(after_prefix(&[1, 0xff]).unwrap().as_slice(), &[2]);
        assert!(after_prefix(&[0xff, 0xff]).is_none());
    }
}

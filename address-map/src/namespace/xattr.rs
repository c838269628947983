//! Extended attributes, in the name spaces that Linux knows.

use super::acl;
use crate::attr::Caller;
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::key;
use crate::limits::{XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use crate::record::Inode;
use crate::shard::{Records, Txn};
use crate::wire::XattrMode;

/// The attribute with the capabilities of a program.
const CAPABILITY: &[u8] = b"security.capability";
/// What names of attributes begin with. Who may use which is the kernel's business.
const NAME_SPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// The value of an attribute.
pub fn get<R: Records>(records: &R, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
    check_name(name)?;
    Ok(records.record(&key::xattr(records.tenant(), ino, name))?.ok_or(Refusal::NoAttribute)?)
}

/// The names of all attributes, each ended by NUL.
pub fn list<R: Records>(records: &R, ino: Ino) -> Result<Vec<u8>> {
    let prefix = key::xattrs(records.tenant(), ino);
    let mut names = Vec::new();
    records.scan_prefix(&prefix, &mut |key, _| {
        names.extend_from_slice(&key[prefix.len()..]);
        names.push(0);
        Ok(true)
    })?;
    Ok(names)
}

/// Sets an attribute. An access control list changes the permission bits too.
pub fn set(
    txn: &mut Txn<'_>,
    ino: Ino,
    caller: Caller,
    name: &[u8],
    value: &[u8],
    mode: XattrMode,
) -> Result<Inode> {
    check_name(name)?;
    if acl::is_list(name) {
        // A list replaces the one before, whatever `mode` says.
        return acl::set(txn, ino, caller, name, value);
    }
    if value.len() > XATTR_VALUE_MAX {
        return Err(Refusal::AttributeTooLarge.into());
    }
    let mut inode = txn.need_inode(ino)?;
    let key = key::xattr(txn.tenant(), ino, name);
    match (mode, txn.value(&key)?.is_some()) {
        (XattrMode::Create, true) => return Err(Refusal::Exists.into()),
        (XattrMode::Replace, false) => return Err(Refusal::NoAttribute.into()),
        (_, false) => check_room(txn, ino, name)?,
        _ => {}
    }
    txn.put(key, &value.to_vec());
    inode.has_xattrs = true;
    inode.ctime = txn.now();
    txn.put_inode(ino, &inode);
    Ok(inode)
}

/// Removes an attribute.
pub fn remove(txn: &mut Txn<'_>, ino: Ino, name: &[u8]) -> Result<Inode> {
    check_name(name)?;
    let mut inode = txn.need_inode(ino)?;
    let key = key::xattr(txn.tenant(), ino, name);
    if txn.value(&key)?.is_none() {
        return Err(Refusal::NoAttribute.into());
    }
    txn.delete(key);
    inode.has_xattrs = has_any(txn, ino)?;
    inode.ctime = txn.now();
    txn.put_inode(ino, &inode);
    Ok(inode)
}

/// Takes a program's capabilities away, because its bytes may change. Answers whether it had any.
pub fn drop_capability(txn: &mut Txn<'_>, ino: Ino) -> Result<bool> {
    let has =
        txn.need_inode(ino)?.has_xattrs && txn.value(&key::xattr(txn.tenant(), ino, CAPABILITY))?.is_some();
    if has {
        remove(txn, ino, CAPABILITY)?;
    }
    Ok(has)
}

/// Whether an inode has attributes.
pub(super) fn has_any<R: Records>(records: &R, ino: Ino) -> Result<bool> {
    let mut found = false;
    records.scan_prefix(&key::xattrs(records.tenant(), ino), &mut |_, _| {
        found = true;
        Ok(false)
    })?;
    Ok(found)
}

/// Whether the list of names has room for another one.
pub(super) fn check_room<R: Records>(records: &R, ino: Ino, name: &[u8]) -> Result<()> {
    match list(records, ino)?.len() + name.len() < XATTR_LIST_MAX {
        true => Ok(()),
        false => Err(Refusal::NoSpace.into()),
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    let known = NAME_SPACES.iter().find(|space| name.starts_with(space));
    match known {
        _ if name.len() > XATTR_NAME_MAX => Err(Refusal::AttributeTooLarge.into()),
        _ if name.contains(&0) || name.is_empty() => Err(Refusal::Invalid.into()),
        _ if acl::is_list(name) => Ok(()),
        None => Err(Refusal::NotSupported.into()),
        Some(space) if space.len() == name.len() => Err(Refusal::Invalid.into()),
        Some(_) => Ok(()),
    }
}

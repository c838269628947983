//! Extended attributes.

use super::object::collect_keys;
use crate::error::{Refusal, Result};
use crate::ids::Ino;
use crate::key;
use crate::limits::{XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use crate::record::Inode;
use crate::shard::{Records, Txn};
use crate::wire::XattrMode;

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

/// Sets an attribute.
pub fn set(txn: &mut Txn<'_>, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<Inode> {
    check_name(name)?;
    if value.len() > XATTR_VALUE_MAX {
        return Err(Refusal::AttributeTooLarge.into());
    }
    let mut inode = txn.need_inode(ino)?;
    let key = key::xattr(txn.tenant(), ino, name);
    match (mode, txn.value(&key)?.is_some()) {
        (XattrMode::Create, true) => return Err(Refusal::Exists.into()),
        (XattrMode::Replace, false) => return Err(Refusal::NoAttribute.into()),
        (_, false) if list(txn, ino)?.len() + name.len() + 1 > XATTR_LIST_MAX => {
            return Err(Refusal::NoSpace.into());
        }
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
    let mut rest = Vec::new();
    collect_keys(txn, &key::xattrs(txn.tenant(), ino), &mut rest)?;
    inode.has_xattrs = !rest.is_empty();
    inode.ctime = txn.now();
    txn.put_inode(ino, &inode);
    Ok(inode)
}

fn check_name(name: &[u8]) -> Result<()> {
    match name.len() {
        0 => Err(Refusal::Invalid.into()),
        1..=XATTR_NAME_MAX if !name.contains(&0) => Ok(()),
        1..=XATTR_NAME_MAX => Err(Refusal::Invalid.into()),
        _ => Err(Refusal::AttributeTooLarge.into()),
    }
}

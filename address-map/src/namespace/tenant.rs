//! A tenant's tree as a whole: its beginning, quota and pool.

use crate::attr::FileKind;
use crate::error::Result;
use crate::ids::{Ino, PoolId};
use crate::record::{Inode, Layout, Quota, TenantRecord, Usage};
use crate::shard::{Records, Txn};

/// What a tree begins with.
#[derive(Clone, Copy, Debug)]
pub struct NewTenant {
    /// Where new files' bytes go.
    pub pool: PoolId,
    /// Bounds.
    pub quota: Quota,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// Permission bits of the root directory.
    pub mode: u32,
    /// Fresh randomness for [`TenantRecord::name_key`].
    pub name_key: u128,
}

/// Makes the root directory; if the tree exists already, only its pool (for later files) and quota are changed.
pub fn ensure(txn: &mut Txn<'_>, new: &NewTenant) -> Result<()> {
    if txn.inode(Ino::ROOT)?.is_some() {
        let head = txn.head()?;
        head.pool = new.pool;
        head.quota = new.quota;
        return Ok(());
    }
    txn.begin_tenant(TenantRecord {
        next_ino: Ino::ROOT.0 + 1,
        next_slot: 1,
        name_key: new.name_key,
        pool: new.pool,
        usage: Usage { bytes: 0, inodes: 1 },
        quota: new.quota,
    });
    let now = txn.now();
    let root = Inode {
        kind: FileKind::Directory,
        mode: new.mode & 0o7777,
        uid: new.uid,
        gid: new.gid,
        nlink: 2,
        size: 0,
        blocks: 0,
        rdev: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        parent: Ino::ROOT,
        has_xattrs: false,
        dirty: false,
        layout: Layout::None,
    };
    txn.put_inode(Ino::ROOT, &root);
    Ok(())
}

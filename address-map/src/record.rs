//! The records of one tenant's part of the map, as they are stored. Keys are in [`crate::key`].

use bincode::{Decode, Encode};

use crate::attr::{Attr, FileKind, Timestamp};
use crate::ids::{Ino, PoolId, ShareId, Slot, TenantId};
use crate::name::Name;

/// What a tenant's tree as a whole needs: counters, quota, identity. One per tenant, updated with every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TenantRecord {
    /// Next inode number to give out.
    pub next_ino: u64,
    /// Next slot to give out to an injected share.
    pub next_slot: u16,
    /// Key of the hash that orders directories; secret, so that nobody can make names collide.
    pub name_key: u128,
    /// Where new files' bytes go.
    pub pool: PoolId,
    /// What is used.
    pub usage: Usage,
    /// What may be used.
    pub quota: Quota,
}

/// What a tenant uses: exact, changed in the transaction that changes the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Usage {
    /// Sum of the sizes of all regular files, bytes (a hard-linked file counts once; deleted files that are still
    /// open count until the last close).
    pub bytes: u64,
    /// Number of inodes, the root included.
    pub inodes: u64,
}

/// Upper bounds of [`Usage`]. Absent: unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Quota {
    /// Most bytes.
    pub bytes: Option<u64>,
    /// Most inodes.
    pub inodes: Option<u64>,
}

/// One inode.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inode {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; for a directory 2 + sub-directories. 0: unlinked, kept while somebody has it open.
    pub nlink: u32,
    /// Regular file: bytes. Directory: number of entries. Symlink: length of the target.
    pub size: u64,
    /// Regular file: allocated units of 512 bytes when last seen.
    pub blocks: u64,
    /// Device number.
    pub rdev: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of contents.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Creation.
    pub crtime: Timestamp,
    /// The directory that holds it. A file with several names has one [`LinkRecord`] per directory instead.
    pub parent: Ino,
    /// It has extended attributes.
    pub has_xattrs: bool,
    /// Somebody may be writing: size, blocks and mtime are to be read from the backing file.
    pub dirty: bool,
    /// Where the bytes are.
    pub layout: Layout,
}

/// Where the bytes of an inode are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Layout {
    /// No bytes (directories, devices, pipes, sockets).
    None,
    /// In the record itself (symlink targets).
    Inline(Vec<u8>),
    /// One backing file of a pool holds all of them.
    Object(ObjectRef),
    /// Was to be of files of several objects. Nothing ever wrote it, and a record that says so is refused; the number of
    /// the variant is not used again.
    Retired(Never),
    /// In a record of their own, see [`crate::namespace::contents`]: a small file of an object store.
    Small {
        /// The pool they move to when they grow.
        pool: PoolId,
    },
    /// One immutable object of an object store holds all of them.
    Stored(StoredObject),
    /// A directory: its entries are the objects of a bucket that were there before.
    Adopted(Adopted),
}

impl Layout {
    /// The pool that has the bytes of a file of one piece.
    pub fn pool(&self) -> Option<PoolId> {
        match self {
            Layout::Object(object) | Layout::Stored(StoredObject { object, .. }) => Some(object.pool),
            Layout::Small { pool } => Some(*pool),
            Layout::None | Layout::Inline(_) | Layout::Adopted(_) => None,
            Layout::Retired(never) => match *never {},
        }
    }
}

/// What no record holds: decoding it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Never {}

/// Which objects of a bucket are the entries of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Adopted {
    /// The pool in whose bucket they are.
    pub pool: PoolId,
    /// What their keys in the bucket begin with: nothing, or something that ends with '/'.
    pub prefix: String,
    /// Owner of what appears.
    pub uid: u32,
    /// Group of what appears.
    pub gid: u32,
    /// Permission bits of files that appear, `0o777`; directories can be searched by whoever may read them, besides.
    pub mode: u32,
    /// How far it has come.
    pub progress: Progress,
}

/// How many of the objects are entries already.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Progress {
    /// Those of this directory become entries when somebody looks into it; until then nobody sees any.
    Unlisted,
    /// Those up to this key, in this directory and below.
    Importing {
        /// The key; `None`: none yet.
        after: Option<String>,
    },
    /// All there were.
    Complete,
}

/// An object of an object store that never changes: other bytes are another object.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StoredObject {
    /// Its address.
    pub object: ObjectRef,
    /// What the store calls this version of it, as `If-Match` takes it.
    pub etag: String,
    /// Its size, bytes.
    pub size: u64,
}

/// A global address: an object of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ObjectRef {
    /// The pool.
    pub pool: PoolId,
    /// The object's key within the pool: opaque, never a tenant's name or path.
    pub key: String,
}

/// What a name in a directory leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Entry {
    /// An inode of the same tree.
    Inode {
        /// Its number.
        ino: Ino,
        /// Its kind, so that listing needs no look at the inode.
        kind: FileKind,
    },
    /// The root of a share from another tenant.
    Injected {
        /// The share.
        share: ShareId,
        /// The slot its inodes are seen under.
        slot: Slot,
        /// Whether the share's root is a directory.
        kind: FileKind,
    },
}

/// How many names a file with several names has in one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LinkRecord {
    /// Number of names, at least 1.
    pub names: u32,
}

/// What a grantee may do with a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Rights {
    /// Look and read.
    ReadOnly,
    /// Everything the permission bits allow.
    ReadWrite,
}

/// The owner's side of a share: the authority. Lives in the owner's shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    /// Root of what is shared, in the owner's tree.
    pub root: Ino,
    /// Who may use it.
    pub grantee: TenantId,
    /// What the grantee may do.
    pub rights: Rights,
    /// Not valid at or after this time.
    pub expires: Option<Timestamp>,
    /// Taken back: refused from the moment this is visible.
    pub revoked: bool,
}

/// How long an address leads to an object when it was given out through a share. Beside the grant, in the owner's shard;
/// a share without one has the limit of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LeaseLimit {
    /// Seconds, at least 1.
    pub seconds: u32,
}

/// The grantee's side of a share: the logical name. Lives in the grantee's shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Injection {
    /// The share.
    pub share: ShareId,
    /// Whose tree it leads into.
    pub owner: TenantId,
    /// The inode it leads to.
    pub root: Ino,
    /// Directory of the grantee that shows it.
    pub parent: Ino,
    /// Name in that directory.
    pub name: Name,
}

/// An object whose inode is gone and that is to be deleted from its pool.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Garbage {
    /// Not before this time.
    pub not_before: Timestamp,
}

/// A change that was made for a mount, remembered until the kernel has the answer: the same request may come again,
/// and must not be carried out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replay {
    /// The kernel's number of the request.
    pub unique: u64,
    /// What came of it.
    pub change: Change,
}

/// What came of a request that changed something, as much as is needed to answer it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// A name was made that leads to this inode.
    Made(Ino),
    /// A name was removed that led to this inode.
    Removed(Ino, FileKind),
    /// A name was moved.
    Renamed {
        /// What it leads to.
        moved: Leads,
        /// What was replaced or exchanged.
        other: Option<Leads>,
    },
    /// Attributes were changed.
    Changed,
}

/// Where a name of the tenant's tree leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Leads {
    /// To an inode of the tree.
    Inode(Ino),
    /// Into a share.
    Share(Slot),
}

/// Size of a directory as `stat` shows it, bytes.
const DIRECTORY_BYTES: u64 = 4096;

impl Inode {
    /// The attributes as `stat` shows them.
    pub fn attr(&self) -> Attr {
        let directory = self.kind == FileKind::Directory;
        Attr {
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size: if directory { DIRECTORY_BYTES } else { self.size },
            blocks: if directory { DIRECTORY_BYTES / 512 } else { self.blocks },
            rdev: self.rdev,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            crtime: self.crtime,
            has_xattrs: self.has_xattrs,
            volatile: self.dirty,
        }
    }

    /// What this inode adds to [`Usage::bytes`].
    pub fn charged_bytes(&self) -> u64 {
        if self.kind == FileKind::File { self.size } else { 0 }
    }
}

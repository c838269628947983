//! The messages themselves.
//!
//! A session begins with [`ToController::Hello`] and [`ToVmds::Welcome`] (or [`ToVmds::Refused`], after which the
//! socket is closed). From then on requests are multiplexed: each carries a number, replies come in any order.

use bincode::{Decode, Encode};

use crate::attr::{Attr, AttrChange, Caller, FileKind, NewMode};
use crate::error::Refusal;
use crate::ids::{NodeId, Slot};
use crate::name::Name;
use crate::wire::{Lease, Source};

/// Oldest protocol version this side speaks.
pub const PROTOCOL_MIN: u16 = 2;
/// Newest protocol version this side speaks.
pub const PROTOCOL_MAX: u16 = 2;

/// What a VMDS says.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ToController {
    /// First frame of a session.
    Hello(Hello),
    /// A question or an order.
    Request {
        /// Chosen by the VMDS, unique among those in flight.
        id: u64,
        /// What is wanted.
        call: Call,
    },
    /// An order that must not be carried out twice, even if it comes twice: [`Call::changes`] says which.
    Change {
        /// As of [`ToController::Request`].
        id: u64,
        /// Which request of the kernel it is for.
        origin: RequestOrigin,
        /// What is wanted.
        call: Call,
    },
    /// First words of a VMDS that has outlived its controller, one for each lease it holds.
    Held {
        /// The inode.
        node: NodeId,
        /// A handle may be writing.
        write: bool,
        /// As of [`super::Lease::backing`].
        backing: Option<u32>,
    },
    /// All [`ToController::Held`] are said.
    Resumed,
    /// Everything named by the invalidation `fence` is forgotten, by the VMDS and by the kernel.
    Forgotten {
        /// Number of the invalidation.
        fence: u64,
    },
    /// No handle of this mount uses the inode any more and its leased descriptors are closed.
    LeaseDropped {
        /// The inode.
        node: NodeId,
    },
    /// The kernel knows nothing of the inode any more, so no handle is left, not even one from before this VMDS was
    /// started. Said by every VMDS but the first one of a mount, whose predecessors may have left handles.
    KernelForgot {
        /// The inode.
        node: NodeId,
    },
}

/// Which request of the kernel a change is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestOrigin {
    /// The kernel's number of the request, without the mark of a repetition.
    pub unique: u64,
    /// A place that no request in flight uses, below [`crate::limits::INFLIGHT_MAX`]: what came of the request is
    /// remembered there until the place is used again.
    pub place: u16,
    /// It may have been carried out before: the kernel repeats it, or the controller was lost before it answered.
    pub repeated: bool,
}

/// What comes through the *door*, the socket on which a VMDS waits while it has no controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AtDoor {
    /// A controller is there again; its end of a new link rides along.
    Controller,
}

/// What a controller says.
#[expect(clippy::large_enum_variant, reason = "one at a time, on its way into or out of a frame")]
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ToVmds {
    /// The session is open.
    Welcome(Welcome),
    /// The session is not opened; the socket closes.
    Refused {
        /// Why, for the log.
        reason: String,
    },
    /// The answer to a request. A descriptor rides along when the answer says so.
    Reply {
        /// Number of the request.
        id: u64,
        /// Its result.
        result: Result<Answer, Refusal>,
    },
    /// Somebody else changed something: forget it, then answer [`ToController::Forgotten`].
    Stale {
        /// Number of this invalidation.
        fence: u64,
        /// What to forget.
        items: Vec<Stale>,
    },
    /// The inode has lost its last name; drop its lease as soon as no handle uses it.
    Orphaned {
        /// The inode.
        node: NodeId,
    },
}

/// The opening of a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Oldest protocol version spoken.
    pub protocol_min: u16,
    /// Newest protocol version spoken.
    pub protocol_max: u16,
    /// Software version, for the log.
    pub software: String,
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// Protocol version of this session.
    pub protocol: u16,
    /// The tenant's name, for logs only.
    pub tenant: String,
    /// How often a VMDS has been started for this mount; from 2 on the kernel is asked to resend.
    pub generation: u32,
    /// How the mount behaves.
    pub options: SessionOptions,
}

/// How a VMDS shall serve its mount.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SessionOptions {
    /// How long the kernel may keep entries and attributes of the tenant's own tree, milliseconds. Changes by
    /// others are pushed, so this may be long. Entries of shares are always asked for anew.
    pub ttl_ms: u64,
    /// Most attributes and most entries kept in the VMDS's cache, each.
    pub cache_entries: u32,
    /// Most leases kept, each with one open descriptor.
    pub leases_max: u32,
    /// Bytes of objects in memory at which reading ahead pauses.
    pub buffer_bytes: u32,
    /// The tenant has a quota of bytes: writes are seen by the VMDS instead of passing straight to the file.
    pub metered: bool,
    /// How long a request may wait for a backing file that is not on a local file system, milliseconds.
    pub pool_timeout_ms: u64,
}

/// What a VMDS asks for. Mutations answer with the attributes as they are afterwards.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Call {
    /// The inode behind a name. → [`Answer::Found`]
    Lookup {
        /// Directory.
        parent: NodeId,
        /// Name in it.
        name: Name,
    },
    /// Attributes. → [`Answer::Attr`]
    Getattr {
        /// Inode.
        node: NodeId,
    },
    /// Changes attributes; a change of size cuts or extends the backing file. → [`Answer::Attr`]
    Setattr {
        /// Inode.
        node: NodeId,
        /// Who asks.
        caller: Caller,
        /// What to change.
        change: AttrChange,
    },
    /// Target of a symbolic link. → [`Answer::Bytes`]
    Readlink {
        /// Inode.
        node: NodeId,
    },
    /// Makes a file, directory, symlink, pipe, socket or device. → [`Answer::Made`]
    Make {
        /// Directory.
        parent: NodeId,
        /// Name to make.
        name: Name,
        /// Who asks.
        caller: Caller,
        /// Permission bits asked for, and the umask.
        mode: NewMode,
        /// What to make.
        what: Make,
    },
    /// Makes a regular file and opens it for reading and writing. → [`Answer::Created`], with a descriptor
    Create {
        /// Directory.
        parent: NodeId,
        /// Name to make.
        name: Name,
        /// Who asks.
        caller: Caller,
        /// Permission bits asked for, and the umask.
        mode: NewMode,
    },
    /// Another name for an inode. → [`Answer::Made`]
    Link {
        /// Inode.
        node: NodeId,
        /// Directory of the new name.
        parent: NodeId,
        /// New name.
        name: Name,
    },
    /// Removes a name of anything but a directory. → [`Answer::Removed`]
    Unlink {
        /// Directory.
        parent: NodeId,
        /// Name to remove.
        name: Name,
    },
    /// Removes an empty directory. → [`Answer::Removed`]
    Rmdir {
        /// Directory that holds it.
        parent: NodeId,
        /// Name to remove.
        name: Name,
    },
    /// Moves a name. → [`Answer::Renamed`]
    Rename {
        /// Directory.
        parent: NodeId,
        /// Name.
        name: Name,
        /// Directory to move to.
        new_parent: NodeId,
        /// Name there.
        new_name: Name,
        /// What to do when it is taken.
        mode: RenameMode,
    },
    /// A page of a directory. → [`Answer::Page`]
    List {
        /// Directory.
        node: NodeId,
        /// Entries whose cookie is larger; 0 begins.
        after: u64,
    },
    /// Value of an extended attribute. → [`Answer::Bytes`]
    Getxattr {
        /// Inode.
        node: NodeId,
        /// Attribute.
        name: Vec<u8>,
    },
    /// Names of all extended attributes, each ended by NUL. → [`Answer::Bytes`]
    Listxattr {
        /// Inode.
        node: NodeId,
    },
    /// Sets an extended attribute; an access control list changes the permission bits too. → [`Answer::Attr`]
    Setxattr {
        /// Inode.
        node: NodeId,
        /// Who asks.
        caller: Caller,
        /// Attribute.
        name: Vec<u8>,
        /// Value.
        value: Vec<u8>,
        /// Whether it must or must not exist.
        mode: XattrMode,
    },
    /// Removes an extended attribute. → [`Answer::Attr`]
    Removexattr {
        /// Inode.
        node: NodeId,
        /// Attribute.
        name: Vec<u8>,
    },
    /// Space and inodes, of the tree the inode belongs to. → [`Answer::Statfs`]
    Statfs {
        /// Inode.
        node: NodeId,
    },
    /// The way to the file's bytes, kept until dropped. → [`Answer::Leased`], with a descriptor, or
    /// [`Answer::Addressed`]
    Lease {
        /// Inode.
        node: NodeId,
        /// For writing too: the inode is volatile from now until [`Call::CloseWrite`].
        write: bool,
        /// Bytes are about to be moved: a file of an object store that is being written is brought near. Without it
        /// [`Source::Unfilled`] will do.
        fill: bool,
    },
    /// A handle that can write is closed: the bytes are to be in the pool, whoever else still writes.
    /// → [`Answer::Done`]
    Flush {
        /// Inode.
        node: NodeId,
    },
    /// So many bytes from the beginning have been written one after the other, and more will follow: what is complete
    /// may go to the object store already. → [`Answer::Done`]
    Wrote {
        /// Inode.
        node: NodeId,
        /// Where writing has come to, bytes.
        end: u64,
    },
    /// Bytes that [`super::Near`] says may be missing from the leased file are to be there. → [`Answer::Done`]
    Fill {
        /// Inode.
        node: NodeId,
        /// As of [`super::Near::tag`]; if another file has taken its place the answer is [`Refusal::Stale`].
        tag: u64,
        /// The first of them.
        start: u64,
        /// Behind the last of them.
        end: u64,
        /// They are about to be changed.
        write: bool,
    },
    /// Sums of the object that an address leads to. → [`Answer::Sums`]
    Sums {
        /// Inode.
        node: NodeId,
        /// As of [`super::Address::etag`]: another object has other sums.
        etag: String,
        /// Which [`crate::sums::BLOCK`] of them.
        block: u32,
    },
    /// A connection to the object store that the file's bytes are in. → [`Answer::Connected`], with a descriptor
    Connect {
        /// Inode.
        node: NodeId,
    },
    /// The last handle that could write is closed: take size and times from the file. → [`Answer::Attr`]
    CloseWrite {
        /// Inode.
        node: NodeId,
    },
    /// The file is about to grow to `size` bytes: charge the quota. → [`Answer::Done`]
    Grow {
        /// Inode.
        node: NodeId,
        /// New size, bytes.
        size: u64,
    },
    /// Makes the bytes of the inode, and everything about it that was acknowledged, survive a power loss.
    /// → [`Answer::Done`]
    Sync {
        /// Inode.
        node: NodeId,
        /// `fdatasync`: attributes that are not needed to find the bytes may be lost.
        data_only: bool,
    },
}

impl Call {
    /// Whether it is about entries of directories.
    pub fn names_directory(&self) -> bool {
        matches!(
            self,
            Call::Lookup { .. }
                | Call::List { .. }
                | Call::Make { .. }
                | Call::Create { .. }
                | Call::Link { .. }
                | Call::Unlink { .. }
                | Call::Rmdir { .. }
                | Call::Rename { .. }
        )
    }

    /// Whether doing it twice differs from doing it once.
    pub fn changes(&self) -> bool {
        match self {
            Call::Make { .. }
            | Call::Create { .. }
            | Call::Link { .. }
            | Call::Unlink { .. }
            | Call::Rmdir { .. }
            | Call::Rename { .. }
            | Call::Setattr { .. }
            | Call::Setxattr { .. }
            | Call::Removexattr { .. } => true,
            Call::Lookup { .. }
            | Call::Getattr { .. }
            | Call::Readlink { .. }
            | Call::List { .. }
            | Call::Getxattr { .. }
            | Call::Listxattr { .. }
            | Call::Statfs { .. }
            | Call::Lease { .. }
            | Call::CloseWrite { .. }
            | Call::Grow { .. }
            | Call::Flush { .. }
            | Call::Connect { .. }
            | Call::Wrote { .. }
            | Call::Fill { .. }
            | Call::Sums { .. }
            | Call::Sync { .. } => false,
        }
    }

    /// The inodes it names: one, or two.
    pub fn nodes(&self) -> (NodeId, Option<NodeId>) {
        match self {
            Call::Lookup { parent, .. }
            | Call::Make { parent, .. }
            | Call::Create { parent, .. }
            | Call::Unlink { parent, .. }
            | Call::Rmdir { parent, .. } => (*parent, None),
            Call::Link { node, parent, .. } => (*node, Some(*parent)),
            Call::Rename { parent, new_parent, .. } => (*parent, Some(*new_parent)),
            Call::Getattr { node }
            | Call::Setattr { node, .. }
            | Call::Readlink { node }
            | Call::List { node, .. }
            | Call::Getxattr { node, .. }
            | Call::Listxattr { node }
            | Call::Setxattr { node, .. }
            | Call::Removexattr { node, .. }
            | Call::Statfs { node }
            | Call::Lease { node, .. }
            | Call::CloseWrite { node }
            | Call::Flush { node }
            | Call::Connect { node }
            | Call::Wrote { node, .. }
            | Call::Fill { node, .. }
            | Call::Sums { node, .. }
            | Call::Grow { node, .. }
            | Call::Sync { node, .. } => (*node, None),
        }
    }
}

/// What [`Call::Make`] makes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Make {
    /// An empty regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice(u32),
    /// A block device.
    BlockDevice(u32),
}

/// What a rename does when the new name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Refuses (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swaps both; both must exist (`RENAME_EXCHANGE`).
    Exchange,
}

/// Whether an extended attribute must exist before it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum XattrMode {
    /// Either way.
    Set,
    /// It must not (`XATTR_CREATE`).
    Create,
    /// It must (`XATTR_REPLACE`).
    Replace,
}

/// An inode and its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeAttr {
    /// The inode.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// Answers to [`Call`]s.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// Attributes of the inode asked for.
    Attr(Attr),
    /// The inode a name leads to.
    Found(NodeAttr),
    /// A name was made.
    Made {
        /// The inode it leads to.
        target: NodeAttr,
        /// The directory, as it is now.
        parent: Attr,
    },
    /// Bytes.
    Bytes(Vec<u8>),
    /// A name is gone.
    Removed {
        /// The inode it led to, as it is now; `nlink` 0 when it is gone.
        target: NodeAttr,
        /// The directory, as it is now.
        parent: Attr,
    },
    /// A name has moved.
    Renamed {
        /// The inode that moved.
        moved: NodeAttr,
        /// The inode whose name was replaced (`nlink` 0 when it is gone) or exchanged.
        other: Option<NodeAttr>,
        /// The directory it left, as it is now.
        parent: Attr,
        /// The directory it is in, as it is now (the same one if it stayed).
        new_parent: Attr,
    },
    /// A page of a directory.
    Page {
        /// Entries in the order of their cookies.
        entries: Vec<ListEntry>,
        /// No entries follow.
        end: bool,
    },
    /// Space and inodes.
    Statfs(Statfs),
    /// A file was made; its descriptor rides along.
    Created {
        /// The file.
        file: NodeAttr,
        /// The directory, as it is now.
        parent: Attr,
        /// How to use the descriptor.
        lease: Lease,
    },
    /// A descriptor rides along.
    Leased {
        /// The file as it is now.
        attr: Attr,
        /// How to use the descriptor.
        lease: Lease,
    },
    /// The bytes are not behind a descriptor. Such a lease, too, ends with the next change of the inode.
    Addressed {
        /// The file as it is now.
        attr: Attr,
        /// Where its bytes are.
        source: Source,
    },
    /// The block of [`crate::sums`] asked for.
    Sums(Vec<u64>),
    /// A connected stream socket rides along.
    Connected,
    /// It takes long and goes on: ask again.
    Pending,
}

impl Answer {
    /// Calls `visit` for each inode it tells of.
    pub fn for_each_node(&self, visit: &mut dyn FnMut(NodeId)) {
        match self {
            Answer::Found(target)
            | Answer::Made { target, .. }
            | Answer::Removed { target, .. }
            | Answer::Created { file: target, .. } => visit(target.node),
            Answer::Renamed { moved, other, .. } => {
                visit(moved.node);
                other.iter().for_each(|other| visit(other.node));
            }
            Answer::Page { entries, .. } => entries.iter().for_each(|entry| visit(entry.node.node)),
            Answer::Done
            | Answer::Attr(_)
            | Answer::Bytes(_)
            | Answer::Statfs(_)
            | Answer::Leased { .. }
            | Answer::Addressed { .. }
            | Answer::Sums(_)
            | Answer::Connected
            | Answer::Pending => {}
        }
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListEntry {
    /// Where listing goes on after this entry: stable while entries come and go, at least 3.
    pub cookie: u64,
    /// Name.
    pub name: Name,
    /// Inode and attributes.
    pub node: NodeAttr,
}

impl ListEntry {
    /// What the entry is.
    pub fn kind(&self) -> FileKind {
        self.node.attr.kind
    }
}

/// What `statfs` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Statfs {
    /// Size, bytes.
    pub bytes: u64,
    /// Free, bytes.
    pub bytes_free: u64,
    /// Inodes.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// Something a VMDS and its kernel must forget.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Stale {
    /// What a name leads to (also that it leads nowhere), and the directory's attributes and listing.
    Entry {
        /// Directory.
        parent: NodeId,
        /// Name.
        name: Name,
    },
    /// Attributes and extended attributes of an inode; of a directory also every name cached in it and its listing.
    Inode {
        /// Inode.
        node: NodeId,
        /// What the kernel has cached of its contents too.
        data: bool,
    },
    /// Everything seen through a slot, leases included: the share is gone or has changed its rights.
    Slot(Slot),
}

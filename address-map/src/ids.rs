//! Newtypes for everything that is numbered, so that one kind of number is never taken for another.

use std::fmt;

use bincode::{Decode, Encode};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A tenant, for ever: numbers are given out by the controller and never reused.
    TenantId(u32)
}
number! {
    /// An inode within one tenant's tree. At most 48 bits; never reused. The root directory is [`Ino::ROOT`].
    Ino(u64)
}
number! {
    /// Which tree of a mount an inode belongs to: 0 is the tenant's own, every injected share has one of its own.
    Slot(u16)
}
number! {
    /// A share (grant and injection carry the same number).
    ShareId(u64)
}
number! {
    /// A storage pool.
    PoolId(u32)
}
number! {
    /// A shard of the address map.
    ShardId(u16)
}
number! {
    /// One mount, from `mount` to `umount`, whatever processes serve it meanwhile. Random, so never used twice.
    MountEpoch(u64)
}
number! {
    /// A position in a shard's history of commits. Larger is later.
    Seq(u64)
}

impl Ino {
    /// The root directory of every tenant.
    pub const ROOT: Ino = Ino(1);
    /// The largest inode number a [`NodeId`] can carry.
    pub const MAX: Ino = Ino((1 << 48) - 1);
}

impl Slot {
    /// The tenant's own tree.
    pub const OWN: Slot = Slot(0);
}

/// What the kernel calls an inode of one mount: `slot << 48 | ino`.
///
/// It is stable across restarts and nodes, and inodes of two tenants never collide in one mount.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the mount.
    pub const ROOT: NodeId = NodeId(1);

    /// The node of `ino` in the tree named by `slot`.
    pub fn new(slot: Slot, ino: Ino) -> Self {
        debug_assert!(ino <= Ino::MAX);
        Self(u64::from(slot.0) << 48 | (ino.0 & Ino::MAX.0))
    }

    /// The tree this node belongs to.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> 48) as u16)
    }

    /// The inode within that tree.
    pub fn ino(self) -> Ino {
        Ino(self.0 & Ino::MAX.0)
    }

    /// Whether the node lies in the tenant's own tree.
    pub fn is_own(self) -> bool {
        self.slot() == Slot::OWN
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({}:{})", self.slot().0, self.ino().0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.slot().0, self.ino().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_splits_into_slot_and_inode() {
        let node = NodeId::new(Slot(7), Ino(42));
        assert_eq!((node.slot(), node.ino()), (Slot(7), Ino(42)));
        assert_eq!(NodeId::new(Slot::OWN, Ino::ROOT), NodeId::ROOT);
        assert!(NodeId::ROOT.is_own() && !node.is_own());
    }
}

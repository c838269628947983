//! Bytes: which leased descriptors this process holds, and moving data through them without making the threads
//! that serve metadata wait.

pub(crate) mod fd;
pub(crate) mod leases;
mod near;
pub(crate) mod pool;
pub(crate) mod store;

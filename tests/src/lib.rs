//! The harness of the end-to-end tests: a [`World`] of its own for every test, helpers that wait for conditions,
//! run commands and build trees.
//!
//! Everything here may be used by benchmarks too. It never looks into the insides of the processes it starts: it
//! knows their command lines, `/proc` and the mounts.

mod captured;
mod far;
mod fixture;
mod history;
mod load;
mod mounts;
mod outside;
mod process;
pub mod s3;
mod small_disk;
mod snapshot;
mod wait;
mod world;

pub use captured::Captured;
pub use far::{FarDirectory, Hanging, Hangs};
pub use fixture::{Random, tree};
pub use history::{Histories, Trees};
pub use load::{
    Loads, Pauses, Pulse, Stop, changes_beside, databases, fill, full, held_locks, listings, mapped_file,
    sequential_files, tree_changes, unlinked_file,
};
pub use mounts::{Mount, detach_all_under, mounts_under};
pub use outside::OutsideStore;
pub use process::{Outcome, Process, children, env_of, fds_of, memory_of, ok, run, run_within, status_field};
pub use small_disk::SmallDisk;
pub use snapshot::{Snapshot, snapshot};
pub use wait::{wait_for, wait_until};
pub use world::{Binaries, Bucket, World};

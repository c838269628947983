//! Naming a backing file that somebody else has registered with the kernel.
//!
//! One of the three files with `unsafe`: `fuser` takes ownership of a number that is not ours.

#![allow(unsafe_code)]

use fuser::{BackingId, FileAttr, FileHandle, FopenFlags, Generation, ReplyCreate, ReplyOpen};
use std::time::Duration;

/// Answers an open: the kernel moves bytes through the file it knows as `backing`.
pub(super) fn opened(reply: ReplyOpen, handle: FileHandle, flags: FopenFlags, backing: u32) {
    // SAFETY: the agent has registered the number on this very device and keeps it while this process holds the
    // lease. `into_raw` below gives the number back without closing what it stands for.
    let id: BackingId = unsafe { reply.wrap_backing(backing) };
    reply.opened_passthrough(handle, flags, &id);
    id.into_raw();
}

/// Answers a create, as [`opened`] does an open.
pub(super) fn created(
    reply: ReplyCreate,
    ttl: &Duration,
    attr: &FileAttr,
    handle: FileHandle,
    flags: FopenFlags,
    backing: u32,
) {
    // SAFETY: as in `opened`.
    let id: BackingId = unsafe { reply.wrap_backing(backing) };
    reply.created_passthrough(ttl, attr, Generation(0), handle, flags, &id);
    id.into_raw();
}

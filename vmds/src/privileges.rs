//! Giving up everything the process does not need, before it looks at anything a tenant can influence.
//!
//! Called while there is one thread: what a thread gives up, the threads it starts do not have.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Becomes `uid` (and the group of the same number) for good. Leaving uid 0 takes all capabilities along; programs
/// executed later, should there be any, gain none.
pub(crate) fn become_user(uid: u32) -> io::Result<()> {
    set_no_new_privs(true)?;
    set_thread_groups(&[])?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(())
}

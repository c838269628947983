//! Giving up everything the process does not need, before it looks at anything a tenant can influence.
//!
//! Called while there is one thread: what a thread gives up, the threads it starts do not have.

use std::io;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, remove_capability_from_bounding_set, set_capabilities_secure_bits,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// Becomes `uid` (and the group of the same number) for good. Leaving uid 0 takes all capabilities along; programs
/// executed later, should there be any, gain none, and being uid 0 would mean nothing any more.
pub(crate) fn become_user(uid: u32) -> io::Result<()> {
    set_no_new_privs(true)?;
    empty_bounding_set()?;
    let root_is_nobody = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(root_is_nobody)?;
    set_thread_groups(&[])?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    // Neither a core file nor a debugger of the same user shows what is in memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Removes every capability the kernel knows, also those that are not known here.
fn empty_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) if number > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

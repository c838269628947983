//! Proof that the layers are in force: what they must refuse is tried, each where no other layer would answer for it.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{DumpableBehavior, dumpable_behavior, getegid, geteuid, getgid, getuid};
use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set, no_new_privs};

use super::SandboxError;

fn must(holds: bool, otherwise: &'static str) -> Result<(), SandboxError> {
    if holds { Ok(()) } else { Err(SandboxError::Leaks(otherwise)) }
}

/// The user is not root and has no way of becoming it.
pub(super) fn privileges_are_gone() -> Result<(), SandboxError> {
    must(!getuid().is_root() && !geteuid().is_root(), "the process is root")?;
    must(!getgid().is_root() && !getegid().is_root(), "the process belongs to the group of root")?;
    let left = capabilities(None).map_err(|_| SandboxError::Leaks("capabilities cannot be read"))?;
    let none = CapabilitySet::empty();
    must(
        left.effective == none && left.permitted == none && left.inheritable == none,
        "capabilities are left",
    )?;
    let obtainable =
        |number: u32| capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1u64 << number));
    must((0..u64::BITS).all(|number| obtainable(number) != Ok(true)), "capabilities can be obtained")?;
    must(no_new_privs() == Ok(true), "programs can gain privileges")?;
    must(dumpable_behavior() == Ok(DumpableBehavior::NotDumpable), "memory can be dumped")
}

/// No file can be opened (Landlock), and none can be named (the root is empty).
pub(super) fn files_are_out_of_reach() -> Result<(), SandboxError> {
    let opened = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    must(opened.is_err(), "a directory can be opened")?;
    must(rustix::fs::stat("/proc").is_err(), "a path can be resolved")
}

/// What is not allowed does not exist.
pub(super) fn calls_are_filtered() -> Result<(), SandboxError> {
    let opened = rustix::fs::open("/", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    must(opened.err() == Some(Errno::NOSYS), "the call that opens files exists")?;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
    must(socket.err() == Some(Errno::NOSYS), "the call that makes sockets exists")
}

//! The sandbox: what is left to a tenant that takes over its VMDS is to answer its own mount and to ask the
//! controller what it may ask anyway.
//!
//! Several layers, each of which stands if another has a hole: limits, no file tree, an own user without
//! capabilities, Landlock, a filter of system calls. Each is proven to be in force before the first request is read.
//! Nothing here can be undone, and nothing is loosened for anybody: what needs more is the agent's to do.

mod filter;
mod landlock;
mod limits;
mod proof;
mod root;
mod syscalls;

use std::io;

use thiserror::Error;

use crate::privileges::become_user;

/// Why the sandbox could not be entered. The process must not serve then.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// A limit of resources was refused.
    #[error("the sandbox cannot limit {what}")]
    Limit {
        /// What was to be limited.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The file tree could not be left.
    #[error("the sandbox cannot leave the file tree (it needs /proc, and to be started as root)")]
    Root(#[source] io::Error),
    /// The user could not be changed.
    #[error("the sandbox cannot become user {uid} (vmds must be started as root)")]
    User {
        /// The user to become.
        uid: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Landlock failed.
    #[error("the sandbox cannot use Landlock")]
    Landlock(#[from] ::landlock::RulesetError),
    /// The kernel has no Landlock.
    #[error(
        "the sandbox needs a kernel with Landlock (Linux 5.13 or later, with \"landlock\" among its lsm=)"
    )]
    NoLandlock,
    /// The filter of system calls failed.
    #[error("the sandbox cannot filter system calls")]
    Filter(#[from] seccompiler::Error),
    /// Something that must be refused was not.
    #[error("the sandbox is not in force: {0}")]
    Leaks(&'static str),
}

/// Puts the process into the sandbox as user `uid`, and proves it. Must be called while there is one thread.
///
/// Afterwards nothing can be opened, connected or executed; what is open stays usable, as is what arrives over a socket.
pub fn enter(uid: u32) -> Result<(), SandboxError> {
    limits::apply()?;
    root::leave().map_err(SandboxError::Root)?;
    become_user(uid).map_err(|source| SandboxError::User { uid, source })?;
    landlock::deny_all()?;
    proof::privileges_are_gone()?;
    proof::files_are_out_of_reach()?;
    filter::apply()?;
    proof::calls_are_filtered()
}

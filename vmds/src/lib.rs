//! The virtual metadata server of one tenant: a FUSE process that holds no secret.
//!
//! `vmds` is started by `vmds-controller` with a few descriptors and nothing else: the FUSE device of a mount, a
//! socket that carries the kernel's first message, a socket to the controller, and one on which another controller is
//! awaited. It enters its [`sandbox`] before it says a word. Data flows one way:
//! [`fuse`] decodes a request, [`fs`] decides, [`namespace`] answers from memory what it may, [`link`] asks the
//! controller for the rest, [`data`] moves bytes through leased descriptors.
//!
//! The crate knows nothing of storage, credentials or other tenants.

#![deny(unsafe_code)]

mod config;
mod data;
mod descriptors;
mod fs;
mod fuse;
mod link;
mod namespace;
mod notices;
mod privileges;
mod resident;
mod run;
pub mod sandbox;
#[cfg(test)]
mod testing;

pub use run::run;

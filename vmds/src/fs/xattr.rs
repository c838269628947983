//! Extended attributes.
//!
//! Access control lists (`system.posix_acl_*`) are not supported, and say so.

use std::sync::Arc;

use address_map::attr::Caller;
use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::limits::{XATTR_NAME_MAX, XATTR_VALUE_MAX};
use address_map::wire::{Call, XattrMode};

use super::error::Errno;
use super::{Done, Fs};
use crate::link::KernelRequest;

/// Kinds of attributes that there are; the kernel says who may use which.
const KINDS: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];
/// The kind that is the superuser's.
const TRUSTED: &[u8] = b"trusted.";
/// What the kernel asks for before writes and executions.
const CAPABILITY: &[u8] = b"security.capability";

/// What a question for bytes gets: the bytes, or only their number if no room was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttrBytes {
    /// The bytes.
    Bytes(Arc<[u8]>),
    /// How many there are.
    Size(u32),
}

fn fit(bytes: Arc<[u8]>, room: u32) -> Result<AttrBytes, Errno> {
    match (u32::try_from(bytes.len()), room) {
        (Ok(size), 0) => Ok(AttrBytes::Size(size)),
        (Ok(size), room) if size <= room => Ok(AttrBytes::Bytes(bytes)),
        _ => Err(Errno::RANGE),
    }
}

/// The names, each ended by a NUL, that everybody may know. The kernel keeps the values to itself, not the names.
fn without_trusted(names: &[u8]) -> Vec<u8> {
    names
        .split_inclusive(|&byte| byte == 0)
        .filter(|name| !name.starts_with(TRUSTED))
        .flatten()
        .copied()
        .collect()
}

fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.len() > XATTR_NAME_MAX {
        return Err(Refusal::Invalid);
    }
    match KINDS.iter().find_map(|kind| name.strip_prefix(*kind)) {
        Some([]) => Err(Refusal::Invalid),
        Some(_) => Ok(()),
        None => Err(Refusal::NotSupported),
    }
}

impl Fs {
    /// Value of an attribute, if it fits into `room` bytes.
    pub(crate) fn getxattr(
        self: &Arc<Self>,
        node: NodeId,
        name: &[u8],
        room: u32,
        done: impl Done<AttrBytes>,
    ) {
        if let Err(refusal) = check_name(name) {
            return done(Err(refusal.into()));
        }
        // Programs of other tenants get no capabilities here.
        let never = !node.is_own() && name == CAPABILITY;
        let none = never || self.cache.attr(node).is_some_and(|attr| !attr.has_xattrs);
        match if none { Some(None) } else { self.cache.xattr(node, name) } {
            Some(Some(value)) => return done(fit(value, room)),
            Some(None) => return done(Err(Refusal::NoAttribute.into())),
            None => {}
        }
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        let name = name.to_vec();
        self.ask(Call::Getxattr { node, name: name.clone() }, super::accept_bytes, move |value| {
            fs.cache.learn(stamp, |facts| match &value {
                Ok(value) => facts.xattr(node, &name, Some(value)),
                Err(Refusal::NoAttribute) => facts.xattr(node, &name, None),
                Err(_) => {}
            });
            done(value.map_err(Errno::from).and_then(|value| fit(value.into(), room)));
        });
    }

    /// Names of all attributes, if they fit into `room` bytes; those for the superuser only if `caller` is.
    pub(crate) fn listxattr(&self, node: NodeId, caller: Caller, room: u32, done: impl Done<AttrBytes>) {
        if self.cache.attr(node).is_some_and(|attr| !attr.has_xattrs) {
            return done(fit(Arc::new([]), room));
        }
        self.ask(Call::Listxattr { node }, super::accept_bytes, move |names| {
            done(names.map_err(Errno::from).and_then(|names| {
                let names = if caller.uid == 0 { names } else { without_trusted(&names) };
                fit(names.into(), room)
            }));
        });
    }

    /// Sets an attribute.
    pub(crate) fn setxattr(
        self: &Arc<Self>,
        request: KernelRequest,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        done: impl Done<()>,
    ) {
        if value.len() > XATTR_VALUE_MAX {
            return done(Err(Refusal::AttributeTooLarge.into()));
        }
        let call = Call::Setxattr { node, name: name.to_vec(), value: value.to_vec(), mode };
        self.change_xattr(request, node, name, call, done);
    }

    /// Removes an attribute.
    pub(crate) fn removexattr(
        self: &Arc<Self>,
        request: KernelRequest,
        node: NodeId,
        name: &[u8],
        done: impl Done<()>,
    ) {
        self.change_xattr(request, node, name, Call::Removexattr { node, name: name.to_vec() }, done);
    }

    fn change_xattr(
        self: &Arc<Self>,
        request: KernelRequest,
        node: NodeId,
        name: &[u8],
        call: Call,
        done: impl Done<()>,
    ) {
        if let Err(refusal) = check_name(name) {
            return done(Err(refusal.into()));
        }
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        self.ask_change(request, call, super::accept_attr, move |attr| {
            done(match attr {
                Ok(attr) => {
                    fs.cache.change(stamp, |facts| {
                        facts.xattrs_changed(node);
                        facts.attr(node, attr);
                    });
                    Ok(())
                }
                Err(refusal) => Err(fs.doubt(refusal, |facts| facts.attr_unknown(node))),
            });
        });
    }
}

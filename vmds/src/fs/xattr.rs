//! Extended attributes. Access control lists are two of them.

use std::sync::Arc;

use address_map::acl;
use address_map::attr::Caller;
use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::limits::{XATTR_NAME_MAX, XATTR_VALUE_MAX};
use address_map::wire::{Call, XattrMode};

use super::error::Errno;
use super::{Done, Fs};
use crate::link::KernelRequest;

/// Kinds of attributes that there are, beside access control lists; the kernel says who may use which.
const KINDS: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
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

fn is_list(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

fn fit(bytes: Arc<[u8]>, room: u32) -> Result<AttrBytes, Errno> {
    match (u32::try_from(bytes.len()), room) {
        (Ok(size), 0) => Ok(AttrBytes::Size(size)),
        (Ok(size), room) if size <= room => Ok(AttrBytes::Bytes(bytes)),
        _ => Err(Errno::RANGE),
    }
}

/// Names without those that only root knows of. Each is ended by NUL.
fn without_trusted(names: &[u8]) -> Vec<u8> {
    let names = names.split_inclusive(|&byte| byte == 0).filter(|name| !name.starts_with(b"trusted."));
    names.flatten().copied().collect()
}

fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.len() > XATTR_NAME_MAX {
        return Err(Refusal::Invalid);
    }
    if is_list(name) {
        return Ok(());
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
        let bare = is_list(name) && self.cache.is_bare(node);
        let none = never || bare || self.cache.attr(node).is_some_and(|attr| !attr.has_xattrs);
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

    /// Names of all attributes that `caller` may know of, if they fit into `room` bytes.
    pub(crate) fn listxattr(
        self: &Arc<Self>,
        node: NodeId,
        caller: Caller,
        room: u32,
        done: impl Done<AttrBytes>,
    ) {
        if self.cache.attr(node).is_some_and(|attr| !attr.has_xattrs) {
            return done(fit(Arc::new([]), room));
        }
        self.ask(Call::Listxattr { node }, super::accept_bytes, move |names| {
            let known = names.map(|names| if caller.uid == 0 { names } else { without_trusted(&names) });
            done(known.map_err(Errno::from).and_then(|names| fit(names.into(), room)));
        });
    }

    /// Takes a program's capabilities away before its bytes change. Of a foreign file they were when it was opened.
    pub(super) fn drop_capability(self: &Arc<Self>, node: NodeId, done: impl Done<()>) {
        let none = self.cache.attr(node).is_some_and(|attr| !attr.has_xattrs)
            || self.cache.xattr(node, CAPABILITY) == Some(None);
        if none || !node.is_own() {
            return done(Ok(()));
        }
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        // Doing it twice does no harm, so it need not be remembered; the write itself comes under the same number.
        let call = Call::Removexattr { node, name: CAPABILITY.to_vec() };
        self.ask(call, super::accept_attr, move |attr| match attr {
            Ok(attr) => {
                fs.cache.change(stamp, |facts| {
                    facts.xattrs_changed(node);
                    facts.attr(node, attr);
                });
                done(Ok(()));
            }
            Err(Refusal::NoAttribute) => {
                fs.cache.learn(stamp, |facts| facts.xattr(node, CAPABILITY, None));
                done(Ok(()));
            }
            Err(refusal) => done(Err(fs.doubt(refusal, |facts| facts.attr_unknown(node)))),
        });
    }

    /// Sets an attribute.
    pub(crate) fn setxattr(
        self: &Arc<Self>,
        request: KernelRequest,
        (node, name): (NodeId, &[u8]),
        caller: Caller,
        value: &[u8],
        mode: XattrMode,
        done: impl Done<()>,
    ) {
        if value.len() > XATTR_VALUE_MAX {
            return done(Err(Refusal::AttributeTooLarge.into()));
        }
        let call = Call::Setxattr { node, caller, name: name.to_vec(), value: value.to_vec(), mode };
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

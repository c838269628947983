//! Operations against a controller that the tests play themselves.

mod coherence;
mod files;
mod filling;
mod listing;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use address_map::attr::{Attr, FileKind, NewMode};
use address_map::ids::{Ino, Slot};
use address_map::wire::NodeAttr;

use super::*;
use crate::link::LinkLimits;
use crate::testing::{FakeController, file_attr, name};

const ROOT: NodeId = NodeId::ROOT;
const REQUEST: crate::link::KernelRequest = crate::link::KernelRequest(42);

fn setup() -> (Arc<Fs>, FakeController) {
    FakeController::with_fs(LinkLimits::default(), FakeController::options())
}

fn node(ino: u64) -> NodeId {
    NodeId::new(Slot::OWN, Ino(ino))
}

fn foreign(ino: u64) -> NodeId {
    NodeId::new(Slot(3), Ino(ino))
}

fn dir_attr() -> Attr {
    Attr { kind: FileKind::Directory, mode: 0o755, nlink: 2, ..file_attr(0) }
}

fn with_node(node: NodeId, attr: Attr) -> NodeAttr {
    NodeAttr { node, attr }
}

/// Starts an operation; its result can be waited for.
fn start<T: Send + 'static>(
    operation: impl FnOnce(Box<dyn FnOnce(Result<T, Errno>) + Send>),
) -> Receiver<Result<T, Errno>> {
    let (done, result) = mpsc::channel();
    operation(Box::new(move |outcome| done.send(outcome).unwrap()));
    result
}

fn lookup(fs: &Arc<Fs>, parent: NodeId, text: &str) -> Receiver<Result<Looked, Errno>> {
    start(|done| fs.lookup(parent, text.as_bytes(), done))
}

fn getattr(fs: &Arc<Fs>, of: NodeId) -> Receiver<Result<Shown, Errno>> {
    start(|done| fs.getattr(of, done))
}

/// The result of an operation that was answered from memory.
fn at_once<T>(result: &Receiver<Result<T, Errno>>) -> Result<T, Errno> {
    result.try_recv().expect("this needs no round trip")
}

/// Makes `name` in the root known to the cache.
fn know(fs: &Arc<Fs>, controller: &FakeController, text: &str, found: NodeAttr) {
    let result = lookup(fs, ROOT, text);
    let (id, _) = controller.next_call();
    controller.answer(id, Answer::Found(found));
    assert!(matches!(result.recv().unwrap(), Ok(Looked::Found(_))));
}

//! Reading immutable objects of an object store over plain HTTP, with addresses that the controller signs and on
//! connections that the controller makes: this process has no key, and could not connect anywhere if it wanted to.
//!
//! [`Object`] decides what to load and when, [`fetch`] loads one range, [`hedge`] asks twice when an answer is late,
//! [`connections`] keeps what can be used again.
//! All waiting happens on one thread, which starts when the first object is read.

mod connections;
mod fetch;
mod hedge;
mod object;
mod reading;

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock, Weak};

use address_map::ids::NodeId;
use address_map::wire::Address;
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::runtime::{Builder, Handle};

use crate::link::Link;
use connections::Connections;
pub(crate) use object::Object;

/// What all objects of a mount share.
struct Shared {
    link: Arc<Link>,
    runtime: OnceLock<Option<Handle>>,
    /// By number of the pool.
    connections: Mutex<HashMap<u32, Arc<Connections>>>,
    /// Bytes loaded or being loaded.
    buffered: AtomicUsize,
    /// Where reading ahead pauses.
    buffered_max: usize,
}

/// The object stores of a mount, as far as it may read them.
pub(crate) struct Store {
    shared: Arc<Shared>,
    /// Objects that somebody reads: a lease that is renewed leads to the same one.
    objects: Mutex<HashMap<NodeId, Weak<Object>>>,
}

impl Store {
    /// Asks for connections and addresses through `link`. Reading ahead pauses with `buffered_max` bytes in memory.
    pub(crate) fn new(link: Arc<Link>, buffered_max: usize) -> Self {
        let shared = Shared {
            link,
            runtime: OnceLock::new(),
            connections: Mutex::default(),
            buffered: AtomicUsize::new(0),
            buffered_max,
        };
        Self { shared: Arc::new(shared), objects: Mutex::default() }
    }

    /// The object behind a lease.
    pub(crate) fn object(&self, node: NodeId, address: Address) -> Arc<Object> {
        let mut objects = self.objects.lock();
        if let Some(known) = objects.get(&node).and_then(Weak::upgrade)
            && known.is_at(&address)
        {
            known.renew(address);
            return known;
        }
        objects.retain(|_, object| object.strong_count() > 0);
        let object = Arc::new(Object::new(node, address, Arc::clone(&self.shared)));
        objects.insert(node, Arc::downgrade(&object));
        object
    }
}

impl Shared {
    /// Where waiting is done.
    fn runtime(&self) -> Result<&Handle, Errno> {
        self.runtime.get_or_init(start_runtime).as_ref().ok_or(Errno::IO)
    }

    fn connections(&self, pool: u32) -> Arc<Connections> {
        let mut connections = self.connections.lock();
        Arc::clone(
            connections.entry(pool).or_insert_with(|| Arc::new(Connections::new(Arc::clone(&self.link)))),
        )
    }
}

/// Starts the thread that waits; it ends with the process.
fn start_runtime() -> Option<Handle> {
    let started = Builder::new_current_thread().enable_io().enable_time().build().and_then(|runtime| {
        let handle = runtime.handle().clone();
        let wait = move || runtime.block_on(std::future::pending::<()>());
        std::thread::Builder::new().name("vmds-store".into()).spawn(wait)?;
        Ok(handle)
    });
    started
        .inspect_err(|error| {
            tracing::error!(error = error as &dyn std::error::Error, "objects cannot be read")
        })
        .ok()
}

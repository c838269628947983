//! Requests that no honest VMDS makes: found out when they are refused, told to the operator, and counted.
//!
//! An honest VMDS names what it was told of. That it is refused is ordinary: a share may have been taken back, a file
//! removed or moved out of the share, while the request was under way. So a refused request is a forgery only if it names
//! what this session was never told of, or what never was: an inode number or a slot that was not given out yet.
//! It need not be the VMDS that forged it: a program with the right to open files by handle can make one up.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use address_map::error::{MapError, Refusal, Result};
use address_map::ids::{Ino, NodeId, Slot};
use address_map::map::Tree;
use address_map::namespace::share;
use address_map::shard::Records;
use address_map::wire::{Answer, SocketError};

use super::serve::ServeError;
use super::{DataPlane, Session};
use crate::metrics::Forgery;
use crate::throttle::Throttle;

/// Forgeries of one session that are logged, per [`LOG_PERIOD`]; all are counted.
const LOG_BURST: u32 = 5;
const LOG_PERIOD: Duration = Duration::from_secs(60);
/// Memory of what a session was told, in words: 128 KiB. With 100,000 nodes told, 1 in 90 others passes for told.
const TOLD_WORDS: usize = 16 * 1024;
/// Bits of it that each node sets.
const TOLD_MARKS: u64 = 4;

/// What a session knows of its VMDS's honesty.
pub(super) struct Witness {
    told: OnceLock<Vec<AtomicU64>>,
    hasher: RandomState,
    /// The VMDS may have been told more than is known here: by a controller that is no more.
    told_more: AtomicBool,
    log: Throttle,
}

impl Default for Witness {
    fn default() -> Self {
        Self {
            told: OnceLock::new(),
            hasher: RandomState::new(),
            told_more: AtomicBool::new(false),
            log: Throttle::new(LOG_BURST, LOG_PERIOD),
        }
    }
}

impl Witness {
    /// Remembers the nodes of others that an answer tells of. Of the tenant's own tree everything may be known.
    pub(super) fn tells(&self, answer: &Answer) {
        answer.for_each_node(&mut |node| {
            if !node.is_own() {
                let told = self.told.get_or_init(|| (0..TOLD_WORDS).map(|_| AtomicU64::new(0)).collect());
                for (word, bit) in self.marks(node) {
                    told[word].fetch_or(bit, Ordering::Relaxed);
                }
            }
        });
    }

    /// Whether the session may have been told of a node. Says so of few others too, and never the reverse.
    fn may_have_told(&self, node: NodeId) -> bool {
        let told = self.told.get();
        told.is_some_and(|told| {
            self.marks(node).all(|(word, bit)| told[word].load(Ordering::Relaxed) & bit != 0)
        })
    }

    fn marks(&self, node: NodeId) -> impl Iterator<Item = (usize, u64)> {
        let hash = self.hasher.hash_one(node.0);
        (0..TOLD_MARKS).map(move |mark| {
            let place = hash.rotate_left(mark as u32 * 16) as usize;
            (place / 64 % TOLD_WORDS, 1 << (place % 64))
        })
    }
}

impl Session {
    /// The VMDS is older than this controller: it was told of things that are not known here.
    pub(crate) fn outlived_its_controller(&self) {
        self.witness.told_more.store(true, Ordering::Relaxed);
    }
}

impl DataPlane {
    /// A request that named these nodes is refused: looks whether it was honest.
    pub(super) fn refused(&self, session: &Session, error: &MapError, named: impl Iterator<Item = NodeId>) {
        if !matches!(error, MapError::Refused(Refusal::NotFound)) {
            return;
        }
        for node in named {
            match self.forged(session, node) {
                Ok(None) => {}
                Ok(Some(forgery)) => return self.report(session, forgery, &node.to_string()),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot look at a refused request"
                    );
                }
            }
        }
    }

    /// The link has ended like this: looks whether the VMDS broke the protocol.
    pub(super) fn ended_by(&self, session: &Session, error: &ServeError) {
        match error {
            ServeError::Link(SocketError::Io(_))
            | ServeError::Version { .. }
            | ServeError::NoTurn
            | ServeError::TooMany => {}
            ServeError::Link(_) | ServeError::NoHello | ServeError::SecondHello => {
                self.report(session, Forgery::Frame, &crate::logging::chain(error));
            }
        }
    }

    /// Tells of a forgery, and counts it.
    pub(super) fn report(&self, session: &Session, forgery: Forgery, what: &str) {
        self.forgeries.count(forgery);
        if let Some(untold) = session.witness.log.pass() {
            let tenant = &session.tenant_name;
            tracing::warn!(%tenant, forgery = forgery.name(), what, untold, "refused what no honest VMDS asks for");
        }
    }

    fn forged(&self, session: &Session, node: NodeId) -> Result<Option<Forgery>> {
        let (slot, ino) = (node.slot(), node.ino());
        if slot == Slot::OWN {
            return Ok(was_never_made(&session.tree, ino)?.then_some(Forgery::Node));
        }
        if session.witness.may_have_told(node) {
            return Ok(None);
        }
        let own = session.tree.view();
        let injection = share::injection(&own, slot)?;
        // Slots are given out in order. That one is given out for the second time takes 65,535 shares with one tenant.
        if injection.is_none() && slot.0 >= own.tenant_record()?.next_slot {
            return Ok(Some(Forgery::Slot));
        }
        if !session.witness.told_more.load(Ordering::Relaxed) {
            return Ok(Some(Forgery::Node));
        }
        let owner = injection.and_then(|injection| self.map.tree(injection.owner).ok());
        let never_made = owner.map(|owner| was_never_made(&owner, ino)).transpose()?;
        Ok((never_made == Some(true)).then_some(Forgery::Node))
    }
}

/// Inode numbers are given out in order, and once.
fn was_never_made(tree: &Tree, ino: Ino) -> Result<bool> {
    Ok(ino.0 < Ino::ROOT.0 || ino.0 >= tree.view().tenant_record()?.next_ino)
}

//! The conversation with one VMDS: opening, requests in, replies out.

use std::iter;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_map::error::{MapError, Refusal, Result};
use address_map::ids::{NodeId, Slot, TenantId};
use address_map::limits::INFLIGHT_MAX;
use address_map::namespace::replay::Origin;
use address_map::wire::{
    Answer, Call, FrameSocket, Hello, PROTOCOL_MAX, PROTOCOL_MIN, RequestOrigin, SocketError, ToController,
    ToVmds, Welcome,
};
use thiserror::Error;

use super::inbox::Inbox;
use super::inflight::{InFlight, Unanswered};
use super::scope::Scope;
use super::{DataPlane, Forgettable, Session, Touched};
use crate::lease::Reads;
use crate::metrics::Forgery;
use crate::pool::BackingFile;

/// How long a VMDS may leave a frame untaken while its buffer is full.
const SEND_DEADLINE: Duration = Duration::from_secs(1);

/// How long a VMDS waits until what its predecessor has asked for has come to an end: as long as a VMDS waits for any
/// answer.
const TURN_WITHIN: Duration = Duration::from_secs(60);

/// How long it may take until one of too many requests without a reply has one.
const REPLIES_WITHIN: Duration = Duration::from_secs(60);

/// Why a conversation ended early.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket failed, or the VMDS sent what is no frame.
    #[error("the link to the VMDS broke")]
    Link(#[from] SocketError),
    /// The first frame was not a greeting.
    #[error("the VMDS did not say hello first")]
    NoHello,
    /// No common protocol version.
    #[error(
        "the VMDS {software} speaks protocol {min} to {max}, this controller {PROTOCOL_MIN} to {PROTOCOL_MAX}"
    )]
    Version {
        /// Its software version.
        software: String,
        /// Its oldest protocol.
        min: u16,
        /// Its newest protocol.
        max: u16,
    },
    /// What its predecessor had asked for has not come to an end.
    #[error("what the VMDS before has asked for is still under way after {} s", TURN_WITHIN.as_secs())]
    NoTurn,
    /// Requests beyond the bound were sent, and those before do not come to an end.
    #[error("too many requests without a reply")]
    TooMany,
    /// A second greeting.
    #[error("the VMDS said hello twice")]
    SecondHello,
}

/// A request that is to be replied to.
pub(super) struct Asked {
    /// Where it came from: a successor of the VMDS knows nothing of the question.
    pub(super) link: Arc<FrameSocket>,
    /// When it was asked.
    pub(super) since: Instant,
    pub(super) id: u64,
    /// The nodes it names.
    pub(super) named: (NodeId, Option<NodeId>),
    pub(super) unanswered: Unanswered,
}

/// What a request leads to.
pub(super) struct Outcome {
    answer: Answer,
    descriptor: Option<BackingFile>,
    slot: Slot,
    tenant: TenantId,
    touched: Vec<Touched>,
    forget: Forgettable,
}

impl Outcome {
    /// An answer to a request that others need not hear of.
    pub(super) fn unchanged(answer: Answer) -> Self {
        Self {
            answer,
            descriptor: None,
            slot: Slot::OWN,
            tenant: TenantId(0),
            touched: Vec::new(),
            forget: Forgettable::new(),
        }
    }

    /// An answer to a change in the tree of `scope`.
    pub(super) fn changed(answer: Answer, scope: &Scope, touched: Vec<Touched>) -> Self {
        Self {
            answer,
            descriptor: None,
            slot: scope.slot,
            tenant: scope.tree.tenant(),
            touched,
            forget: Forgettable::new(),
        }
    }

    /// It touched something in the tree of `scope` after all.
    pub(super) fn touching(self, scope: &Scope, touched: Vec<Touched>) -> Self {
        Self { slot: scope.slot, tenant: scope.tree.tenant(), touched, ..self }
    }

    /// Other mounts must forget something besides.
    pub(super) fn and_forget(self, forget: Forgettable) -> Self {
        Self { forget, ..self }
    }

    /// With a descriptor.
    pub(super) fn with_descriptor(self, descriptor: BackingFile) -> Self {
        Self { descriptor: Some(descriptor), ..self }
    }
}

impl Session {
    /// Ends the VMDS that is there; the agent starts another one.
    pub(crate) fn cut_off(&self) {
        self.hang_up();
        self.control.replace_vmds();
    }

    /// The invalidations that the VMDS has done and nobody has heard of yet, because a request of it takes long.
    pub(super) fn heard(&self) -> Vec<u64> {
        let inbox = self.inbox.lock().clone();
        inbox.map(|inbox| inbox.read_ahead()).unwrap_or_default()
    }

    /// Ends the link to a VMDS that is none any more.
    pub(crate) fn hang_up(&self) {
        if let Some(link) = self.link.lock().take() {
            link.shutdown();
        }
    }

    /// Whether what came over this link came from the VMDS that serves.
    pub(super) fn speaks_on(&self, link: &Arc<FrameSocket>) -> bool {
        self.link.lock().as_ref().is_some_and(|current| Arc::ptr_eq(current, link))
    }

    /// The link is over, whoever ended it. A newer one stays.
    fn disconnected(&self, link: &Arc<FrameSocket>) {
        self.link.lock().take_if(|current| Arc::ptr_eq(current, link));
    }

    /// Sends without waiting; a VMDS whose buffer is full is cut off.
    pub(super) fn send_now(&self, message: &ToVmds) -> bool {
        let Some(link) = self.link.lock().clone() else { return false };
        let sent = link.send_now(message);
        if let Err(error) = &sent {
            tracing::warn!(tenant = %self.tenant_name, error = error as &dyn std::error::Error, "cutting off the VMDS");
            self.cut_off();
        }
        sent.is_ok()
    }

    /// Answers on the link that asked: a successor of the VMDS knows nothing of the question.
    fn reply(
        &self,
        link: &Arc<FrameSocket>,
        id: u64,
        result: Result<Answer, Refusal>,
        descriptor: Option<BackingFile>,
    ) {
        if let Ok(answer) = &result {
            self.witness.tells(answer);
        }
        let reply = ToVmds::Reply { id, result };
        if let Err(error) = link.send(&reply, descriptor.as_ref().map(|fd| fd.as_fd())) {
            tracing::warn!(tenant = %self.tenant_name, error = &error as &dyn std::error::Error, "a reply was not taken");
            if self.speaks_on(link) {
                self.cut_off();
            }
        }
    }
}

impl DataPlane {
    /// Talks with one generation of a mount's VMDS until it is gone. After the greetings `wait_for_turn` waits until
    /// this generation is the one that serves; until then the mount's link is its predecessor's. If it answers `false`
    /// it never will be.
    pub fn serve(
        self: &Arc<Self>,
        session: &Arc<Session>,
        socket: FrameSocket,
        generation: u32,
        wait_for_turn: impl FnOnce() -> bool,
    ) -> Result<(), ServeError> {
        let mut buffer = Vec::new();
        let socket = Arc::new(socket);
        socket.set_send_timeout(SEND_DEADLINE).map_err(SocketError::from)?;
        let greeted = welcome(session, &socket, generation, &mut buffer);
        if !greeted.inspect_err(|error| self.ended_by(session, error))? || !wait_for_turn() {
            return Ok(());
        }
        // What a predecessor has asked for may still be under way, though it is dead. The kernel asks the successor again:
        // only when the first has been carried out, and is remembered, can the second be known for the same.
        let Some(_alone) = session.talking.try_lock_for(TURN_WITHIN) else {
            // Another one may find the predecessor's last request at its end.
            session.cut_off();
            return Err(ServeError::NoTurn);
        };
        session.elsewhere.wait();
        if generation > 1 {
            self.leases.inherit(session.id);
        }
        let inbox = Arc::new(Inbox::new(socket.clone()));
        *session.inbox.lock() = Some(inbox.clone());
        *session.link.lock() = Some(socket.clone());
        self.hub.connected(session);
        let outcome = self.talk(session, &socket, &inbox);
        self.recovery.resumed(session.id);
        *session.inbox.lock() = None;
        session.disconnected(&socket);
        if let Err(error) = &outcome {
            self.ended_by(session, error);
            session.cut_off();
        }
        outcome
    }

    fn talk(
        self: &Arc<Self>,
        session: &Arc<Session>,
        socket: &Arc<FrameSocket>,
        inbox: &Inbox,
    ) -> Result<(), ServeError> {
        let in_flight = InFlight::default();
        let one_more = || in_flight.one_more(REPLIES_WITHIN).ok_or(ServeError::TooMany);
        let asked = |id, named, unanswered| Asked {
            link: socket.clone(),
            since: Instant::now(),
            id,
            named,
            unanswered,
        };
        while let Some(message) = inbox.next()? {
            match message {
                ToController::Held { node, write, backing } => self.held(session, node, write, backing),
                ToController::Resumed => self.recovery.resumed(session.id),
                ToController::Forgotten { fence } => self.hub.acknowledge(fence, session.id),
                ToController::LeaseDropped { node } if self.leases.is_inherited((session.id, node)) => {}
                ToController::LeaseDropped { node } | ToController::KernelForgot { node } => {
                    self.release_lease(session, node);
                }
                ToController::Request { id, call } => {
                    let unanswered = one_more()?;
                    self.recovery.wait();
                    let named = call.nodes();
                    match call {
                        Call::Sync { node, data_only } => {
                            self.sync_then_reply(session, asked(id, named, unanswered), node, data_only)
                        }
                        call => self.answer_then_reply(session, asked(id, named, unanswered), call, None),
                    }
                }
                ToController::Change { id, origin, call } => {
                    let unanswered = one_more()?;
                    self.recovery.wait();
                    let named = call.nodes();
                    self.change_then_reply(session, asked(id, named, unanswered), origin, call);
                }
                ToController::Hello(_) => return Err(ServeError::SecondHello),
            }
        }
        Ok(())
    }

    /// A request that must not be carried out twice.
    fn change_then_reply(
        self: &Arc<Self>,
        session: &Arc<Session>,
        asked: Asked,
        origin: RequestOrigin,
        call: Call,
    ) {
        let origin = match self.done_before(session, &origin, &call) {
            Ok(None) => Some(Origin { mount: session.mount, place: origin.place, unique: origin.unique }),
            Ok(Some(again)) => return self.reply(session, asked, Ok(again)),
            Err(error) => return self.reply(session, asked, Err(error)),
        };
        self.answer_then_reply(session, asked, call, origin);
    }

    /// A request of which it is certain that it is to be carried out.
    pub(super) fn answer_then_reply(
        self: &Arc<Self>,
        session: &Arc<Session>,
        asked: Asked,
        call: Call,
        origin: Option<Origin>,
    ) {
        let Some(asked) = self.answer_stored(session, asked, &call, origin) else { return };
        let Some(asked) = self.answer_cut(session, asked, &call, origin) else { return };
        let again = call.names_directory().then(|| call.clone());
        match (self.answer(session, call, origin), again) {
            (Err(MapError::Unlisted(tenant, ino)), Some(call)) => {
                self.list_then_answer(session, asked, (tenant, ino), call, origin);
            }
            (outcome, _) => self.reply(session, asked, outcome),
        }
    }

    /// What came of a request if it was carried out before.
    fn done_before(&self, session: &Session, origin: &RequestOrigin, call: &Call) -> Result<Option<Outcome>> {
        if !call.changes() || usize::from(origin.place) >= INFLIGHT_MAX {
            self.report(session, Forgery::Request, "a change that is none, or at a place that is none");
            return Err(Refusal::Invalid.into());
        }
        if origin.repeated { self.answer_again(session, call, origin.unique) } else { Ok(None) }
    }

    /// A lease from before this controller was started.
    fn held(&self, session: &Session, node: NodeId, write: bool, backing: Option<u32>) {
        // What may not be seen any more is not held any more either: the VMDS will be told when it asks.
        let scope = match self.scope(session, node) {
            Ok(scope) => scope,
            Err(error) => return self.refused(session, &error, iter::once(node)),
        };
        let file = (scope.tree.tenant(), scope.ino);
        self.leases.hold(file, (session.id, node), write);
        self.leases.set_reads(file, (session.id, node), Reads::Resumed);
        if let Some(backing) = backing {
            self.leases.set_backing(file, (session.id, node), backing);
        }
    }

    pub(super) fn answer(&self, session: &Session, call: Call, origin: Option<Origin>) -> Result<Outcome> {
        match call {
            Call::Lookup { parent, name } => self.lookup(session, parent, &name).map(Outcome::unchanged),
            Call::Getattr { node } => self.getattr(session, node).map(Outcome::unchanged),
            Call::Readlink { node } => self.readlink(session, node).map(Outcome::unchanged),
            Call::List { node, after } => self.list(session, node, after).map(Outcome::unchanged),
            Call::Getxattr { node, name } => self.getxattr(session, node, &name).map(Outcome::unchanged),
            Call::Listxattr { node } => self.listxattr(session, node).map(Outcome::unchanged),
            Call::Statfs { node } => self.statfs(session, node).map(Outcome::unchanged),
            Call::Setattr { node, caller, change } => self.setattr(session, node, caller, change, origin),
            Call::Make { parent, name, caller, mode, what } => {
                self.make(session, (parent, name), caller, mode, &what, origin)
            }
            Call::Create { parent, name, caller, mode } => {
                self.create(session, parent, name, caller, mode, origin)
            }
            Call::Link { node, parent, name } => self.link(session, node, parent, name, origin),
            Call::Unlink { parent, name } => self.unlink(session, parent, name, origin),
            Call::Rmdir { parent, name } => self.rmdir(session, parent, name, origin),
            Call::Rename { parent, name, new_parent, new_name, mode } => {
                self.rename(session, (parent, name), (new_parent, new_name), mode, origin)
            }
            Call::Setxattr { node, caller, name, value, mode } => {
                self.setxattr(session, (node, &name), caller, &value, mode, origin)
            }
            Call::Removexattr { node, name } => self.removexattr(session, node, &name, origin),
            Call::Lease { node, write, .. } => self.lease(session, node, write),
            // Of a file that belongs to no object store nothing is kept back.
            Call::Flush { node } | Call::Wrote { node, .. } | Call::Fill { node, .. } => {
                self.need_file(session, node).map(|_| Outcome::unchanged(Answer::Done))
            }
            Call::Connect { node } | Call::Sums { node, .. } => {
                self.need_file(session, node).and_then(|_| Err(Refusal::NotSupported.into()))
            }
            Call::CloseWrite { node } => self.close_write(session, node),
            Call::Grow { node, size } => self.grow(session, node, size),
            // Answered by `sync_then_reply`.
            Call::Sync { .. } => Err(Refusal::Invalid.into()),
        }
    }

    /// Replies; a change that others may have copies of is acknowledged when those are gone.
    pub(super) fn reply(&self, session: &Arc<Session>, asked: Asked, outcome: Result<Outcome>) {
        let Asked { link, since: _, id, named: (node, other), unanswered } = asked;
        match outcome {
            Err(error) => {
                log_failure(session, &error);
                self.refused(session, &error, iter::once(node).chain(other));
                session.reply(&link, id, Err(error.refusal()), None);
            }
            Ok(Outcome { answer, descriptor, touched, .. }) if touched.is_empty() => {
                session.reply(&link, id, Ok(answer), descriptor);
            }
            Ok(Outcome { answer, descriptor, touched, slot, tenant, forget }) => {
                let author = session.clone();
                let done = Box::new(move || {
                    author.reply(&link, id, Ok(answer), descriptor);
                    drop(unanswered);
                });
                self.hub.invalidate((session.id, slot), tenant, &touched, forget, done);
            }
        }
    }
}

fn log_failure(session: &Session, error: &MapError) {
    if !matches!(error, MapError::Refused(_)) {
        tracing::error!(tenant = %session.tenant_name, error = error as &dyn std::error::Error, "a request failed");
    }
}

fn welcome(
    session: &Session,
    socket: &FrameSocket,
    generation: u32,
    buffer: &mut Vec<u8>,
) -> Result<bool, ServeError> {
    let Some((first, _)) = socket.receive::<ToController>(buffer)? else { return Ok(false) };
    let ToController::Hello(Hello { protocol_min, protocol_max, software }) = first else {
        return Err(ServeError::NoHello);
    };
    let protocol = PROTOCOL_MAX.min(protocol_max);
    if protocol < PROTOCOL_MIN.max(protocol_min) {
        let error = ServeError::Version { software, min: protocol_min, max: protocol_max };
        socket.send(&ToVmds::Refused { reason: error.to_string() }, None)?;
        return Err(error);
    }
    let welcome =
        Welcome { protocol, tenant: session.tenant_name.clone(), generation, options: session.options() };
    socket.send(&ToVmds::Welcome(welcome), None)?;
    Ok(true)
}

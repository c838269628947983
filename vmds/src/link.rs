//! The connection to the controller: calls go out from any thread, answers run their continuations on one.
//!
//! Nobody waits for an answer: whoever calls leaves a continuation that sends the FUSE reply. Every call ends
//! exactly once: answered or overdue. A controller that goes away takes no call with it: the process waits at its
//! *door* for another one, names the leases it holds, and asks again what has not been answered.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::limits::INFLIGHT_MAX;
use address_map::wire::{
    Answer, AtDoor, Call, FrameSocket, Hello, PROTOCOL_MAX, PROTOCOL_MIN, RequestOrigin, SocketError, Stale,
    ToController, ToVmds, Welcome,
};
use parking_lot::{Condvar, Mutex};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use thiserror::Error;
use tracing::{debug, info, warn};

/// How a call ended.
pub(crate) type Outcome = Result<(Answer, Option<OwnedFd>), Refusal>;

/// What the controller says of its own accord.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something has changed and must be forgotten; then `fence` is to be answered.
    Stale {
        /// Number of the invalidation.
        fence: u64,
        /// What to forget.
        items: Vec<Stale>,
    },
    /// An inode has lost its last name.
    Orphaned {
        /// The inode.
        node: NodeId,
    },
}

/// Why a session could not be opened, or why it ended.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// The socket failed or carried something that is not a frame.
    #[error("the connection to the controller failed")]
    Socket(#[from] SocketError),
    /// The socket could not be set up.
    #[error("the control socket cannot be set up")]
    Setup(#[source] std::io::Error),
    /// The controller closed the connection.
    #[error("the controller is gone")]
    Closed,
    /// The controller does not want this session.
    #[error("the controller refused the session: {0}")]
    Refused(String),
    /// The controller did not follow the protocol.
    #[error("the controller broke the protocol: {0}")]
    Protocol(&'static str),
}

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkLimits {
    /// Longest time from a call to its end.
    pub(crate) deadline: Duration,
    /// How often overdue calls are looked for while nothing arrives.
    pub(crate) tick: Duration,
    /// Longest time the opening of a session takes.
    pub(crate) opening: Duration,
    /// Longest time a frame waits for a controller that does not read.
    pub(crate) sending: Duration,
    /// Most calls in flight.
    pub(crate) inflight: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            tick: Duration::from_secs(1),
            opening: Duration::from_secs(10),
            sending: Duration::from_secs(10),
            inflight: INFLIGHT_MAX,
        }
    }
}

type Continuation = Box<dyn FnOnce(Outcome) + Send>;

/// A request of the kernel, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelRequest(pub(crate) u64);

impl KernelRequest {
    /// Set by the kernel in the number of a request that a process before this one has read.
    const REPEATED: u64 = 1 << 63;

    fn origin(self, place: u16) -> RequestOrigin {
        let Self(number) = self;
        RequestOrigin { unique: number & !Self::REPEATED, place, repeated: number & Self::REPEATED != 0 }
    }
}

/// A lease this process holds, for a controller that knows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    /// The inode.
    pub(crate) node: NodeId,
    /// A handle may be writing.
    pub(crate) write: bool,
    /// The kernel's number of the file.
    pub(crate) backing: Option<u32>,
}

/// Generations of VMDSes that remember changes in different places, so that what a predecessor did is not written over
/// before the kernel has asked for it again.
const GENERATIONS: u32 = 16;
/// Changes in flight.
const CHANGES_MAX: u16 = INFLIGHT_MAX as u16 / GENERATIONS as u16;

struct Waiting {
    since: Instant,
    message: ToController,
    /// The connection it was last sent on; 0: on none.
    sent_on: u64,
    done: Continuation,
}

impl Waiting {
    /// The message, to be sent on another connection. What was sent before may have been carried out.
    fn message_again(&mut self, connection: u64) -> ToController {
        if let (ToController::Change { origin, .. }, 1..) = (&mut self.message, self.sent_on) {
            origin.repeated = true;
        }
        self.sent_on = connection;
        self.message.clone()
    }

    fn place(&self) -> Option<u16> {
        match &self.message {
            ToController::Change { origin, .. } => Some(origin.place),
            _ => None,
        }
    }
}

struct Calls {
    waiting: HashMap<u64, Waiting>,
    next: u64,
    /// Places where changes can be remembered and that no change in flight uses.
    places: Vec<u16>,
    /// The connection, counted from 1, and its socket while it stands.
    connection: u64,
    socket: Option<Arc<FrameSocket>>,
    /// There will be no other connection.
    closed: bool,
}

/// An open session with the controller.
pub(crate) struct Link {
    limits: LinkLimits,
    door: Option<FrameSocket>,
    calls: Mutex<Calls>,
    room: Condvar,
}

thread_local! {
    /// This thread runs continuations. It must never wait for room in the table: it is the one that makes room.
    static CONTINUES: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs continuations of calls, and so must not wait for anything slow.
pub(crate) fn on_continuation_thread() -> bool {
    CONTINUES.get()
}

impl Link {
    /// Opens the session: says hello and waits for the welcome. At the `door` another controller is awaited when this
    /// one goes away; without one that is the end.
    pub(crate) fn open(
        socket: FrameSocket,
        door: Option<FrameSocket>,
        limits: LinkLimits,
    ) -> Result<(Self, Welcome), LinkError> {
        let welcome = greet(&socket, limits)?;
        let first_place = (welcome.generation % GENERATIONS) as u16 * CHANGES_MAX;
        let calls = Calls {
            waiting: HashMap::new(),
            next: 0,
            places: (first_place..first_place + CHANGES_MAX).collect(),
            connection: 1,
            socket: Some(Arc::new(socket)),
            closed: false,
        };
        Ok((Self { limits, door, calls: Mutex::new(calls), room: Condvar::new() }, welcome))
    }

    /// Asks the controller; `done` runs exactly once, on the receiving thread, or here if the call cannot be made.
    pub(crate) fn call(&self, call: Call, done: impl FnOnce(Outcome) + Send + 'static) {
        self.submit(Box::new(done), |_| true, |id, _| ToController::Request { id, call });
    }

    /// Has the controller change something, once, however often the kernel asks for it.
    pub(crate) fn change(
        &self,
        request: KernelRequest,
        call: Call,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) {
        let has_place = |calls: &Calls| !calls.places.is_empty();
        self.submit(Box::new(done), has_place, |id, calls| match calls.places.pop() {
            Some(place) => ToController::Change { id, origin: request.origin(place), call },
            None => unreachable!("there was a place a moment ago"),
        });
    }

    fn submit(
        &self,
        done: Continuation,
        ready: impl Fn(&Calls) -> bool,
        message: impl FnOnce(u64, &mut Calls) -> ToController,
    ) {
        let mut calls = self.calls.lock();
        let full = |calls: &mut Calls| {
            let room = calls.waiting.len() < self.limits.inflight || on_continuation_thread();
            !(calls.closed || room && ready(calls))
        };
        if !on_continuation_thread() {
            self.room.wait_while_for(&mut calls, full, self.limits.deadline);
        }
        if calls.closed || full(&mut calls) {
            drop(calls);
            return done(Err(Refusal::Io));
        }
        calls.next += 1;
        let id = calls.next;
        let message = message(id, &mut calls);
        let (socket, sent_on) = match &calls.socket {
            Some(socket) => (Some(Arc::clone(socket)), calls.connection),
            None => (None, 0),
        };
        calls.waiting.insert(id, Waiting { since: Instant::now(), message: message.clone(), sent_on, done });
        drop(calls);
        // If it cannot be sent the connection is over, and the call waits for the next one.
        if let Some(Err(error)) = socket.map(|socket| socket.send(&message, None)) {
            debug!(error = &error as &dyn std::error::Error, "a call could not be sent");
        }
    }

    /// Tells the controller that everything named by `fence` is forgotten.
    pub(crate) fn forgotten(&self, fence: u64) {
        self.tell(&ToController::Forgotten { fence });
    }

    /// Tells the controller that the descriptors of `node` are closed.
    pub(crate) fn lease_dropped(&self, node: NodeId) {
        self.tell(&ToController::LeaseDropped { node });
    }

    /// Tells the controller that the kernel knows nothing of `node` any more.
    pub(crate) fn kernel_forgot(&self, node: NodeId) {
        self.tell(&ToController::KernelForgot { node });
    }

    /// Receives until no controller is to be expected any more, and says why. All calls have ended then. `held` says
    /// which leases are held, for a controller that does not know.
    pub(crate) fn receive(
        &self,
        mut on_event: impl FnMut(Event),
        held: impl Fn() -> Vec<Holding>,
    ) -> LinkError {
        CONTINUES.set(true);
        let end = loop {
            let socket = self.calls.lock().socket.clone();
            let end = match socket {
                Some(socket) => self.receive_until_error(&socket, &mut on_event),
                None => LinkError::Closed,
            };
            self.calls.lock().socket = None;
            warn!(error = &end as &dyn std::error::Error, "the controller is gone; waiting for another one");
            if let Err(end) = self.reconnect(&held) {
                break end;
            }
        };
        let left = {
            let mut calls = self.calls.lock();
            calls.closed = true;
            std::mem::take(&mut calls.waiting)
        };
        self.room.notify_all();
        for waiting in left.into_values() {
            (waiting.done)(Err(Refusal::Io));
        }
        end
    }

    /// Waits at the door for a controller that takes the session, however many go away again before they have.
    fn reconnect(&self, held: &impl Fn() -> Vec<Holding>) -> Result<(), LinkError> {
        loop {
            let socket = self.wait_at_door()?;
            match self.resume(socket, held) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.calls.lock().socket = None;
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "this controller does not take the session"
                    );
                }
            }
        }
    }

    /// Tells a controller what is held, and asks it what has not been answered.
    fn resume(&self, socket: FrameSocket, held: &impl Fn() -> Vec<Holding>) -> Result<(), LinkError> {
        greet(&socket, self.limits)?;
        let said = held();
        for Holding { node, write, backing } in &said {
            socket.send(&ToController::Held { node: *node, write: *write, backing: *backing }, None)?;
        }
        socket.send(&ToController::Resumed, None)?;
        let socket = Arc::new(socket);
        let again = {
            let mut calls = self.calls.lock();
            calls.connection += 1;
            calls.socket = Some(Arc::clone(&socket));
            let connection = calls.connection;
            let unsent = calls.waiting.iter_mut().filter(|(_, waiting)| waiting.sent_on < connection);
            let mut again: Vec<(u64, ToController)> =
                unsent.map(|(id, waiting)| (*id, waiting.message_again(connection))).collect();
            again.sort_unstable_by_key(|(id, _)| *id);
            again
        };
        info!(leases = said.len(), calls = again.len(), "a controller is there again");
        for (_, message) in &again {
            socket.send(message, None)?;
        }
        // What was let go of while it was being told.
        let still = held();
        for gone in said.iter().filter(|holding| still.iter().all(|other| other.node != holding.node)) {
            self.lease_dropped(gone.node);
        }
        Ok(())
    }

    fn wait_at_door(&self) -> Result<FrameSocket, LinkError> {
        let door = self.door.as_ref().ok_or(LinkError::Closed)?;
        let setup = |error: rustix::io::Errno| LinkError::Setup(error.into());
        set_socket_timeout(door, Timeout::Recv, Some(self.limits.tick)).map_err(setup)?;
        let mut buffer = Vec::new();
        loop {
            match door.receive::<AtDoor>(&mut buffer) {
                Ok(Some((AtDoor::Controller, Some(link)))) => return Ok(FrameSocket::from(link)),
                Ok(Some((AtDoor::Controller, None))) => {}
                Ok(None) => return Err(LinkError::Closed),
                Err(SocketError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.fail_overdue(Instant::now());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn receive_until_error(&self, socket: &FrameSocket, on_event: &mut impl FnMut(Event)) -> LinkError {
        let mut buffer = Vec::new();
        let mut swept = Instant::now();
        loop {
            let received = socket.receive::<ToVmds>(&mut buffer);
            if swept.elapsed() >= self.limits.tick {
                swept = Instant::now();
                self.fail_overdue(swept);
            }
            match received {
                Ok(Some((ToVmds::Reply { id, result }, descriptor))) => {
                    let answered = self.calls.lock().waiting.remove(&id);
                    match answered {
                        Some(waiting) => {
                            let place = waiting.place();
                            (waiting.done)(result.map(|answer| (answer, descriptor)));
                            // The kernel has its answer: what was remembered of the change may be written over.
                            self.make_room(place);
                        }
                        None => debug!(id, "an answer came too late"),
                    }
                }
                Ok(Some((ToVmds::Stale { fence, items }, _))) => on_event(Event::Stale { fence, items }),
                Ok(Some((ToVmds::Orphaned { node }, _))) => on_event(Event::Orphaned { node }),
                Ok(Some((ToVmds::Welcome(_) | ToVmds::Refused { .. }, _))) => {
                    return LinkError::Protocol("a session is opened once");
                }
                Ok(None) => return LinkError::Closed,
                Err(SocketError::Io(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return error.into(),
            }
        }
    }

    fn make_room(&self, place: Option<u16>) {
        self.calls.lock().places.extend(place);
        self.room.notify_all();
    }

    fn fail_overdue(&self, now: Instant) {
        let overdue: Vec<Waiting> = {
            let mut calls = self.calls.lock();
            let late = |waiting: &Waiting| now.duration_since(waiting.since) >= self.limits.deadline;
            calls.waiting.extract_if(|_, waiting| late(waiting)).map(|(_, waiting)| waiting).collect()
        };
        if overdue.is_empty() {
            return;
        }
        warn!(calls = overdue.len(), "the controller did not answer in time");
        for waiting in overdue {
            let place = waiting.place();
            (waiting.done)(Err(Refusal::Io));
            self.make_room(place);
        }
    }

    fn tell(&self, message: &ToController) {
        let Some(socket) = self.calls.lock().socket.clone() else { return };
        // If it fails the connection is at its end, and with it everything the controller believes of this side.
        if let Err(error) = socket.send(message, None) {
            debug!(error = &error as &dyn std::error::Error, "a notice could not be sent");
        }
    }
}

/// Says hello on a new connection and waits for the welcome.
fn greet(socket: &FrameSocket, limits: LinkLimits) -> Result<Welcome, LinkError> {
    socket.set_send_timeout(limits.sending).map_err(LinkError::Setup)?;
    let wait_at_most =
        |time| set_socket_timeout(socket, Timeout::Recv, Some(time)).map_err(|e| LinkError::Setup(e.into()));
    wait_at_most(limits.opening)?;
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        software: env!("CARGO_PKG_VERSION").to_owned(),
    };
    socket.send(&ToController::Hello(hello), None)?;
    let welcome = match socket.receive::<ToVmds>(&mut Vec::new())?.ok_or(LinkError::Closed)? {
        (ToVmds::Welcome(welcome), _) => welcome,
        (ToVmds::Refused { reason }, _) => return Err(LinkError::Refused(reason)),
        _ => return Err(LinkError::Protocol("the first frame is no welcome")),
    };
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol) {
        return Err(LinkError::Protocol("it chose a version that was not offered"));
    }
    wait_at_most(limits.tick)?;
    Ok(welcome)
}

#[cfg(test)]
mod tests;

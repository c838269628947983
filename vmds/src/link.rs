//! The connection to the controller: calls go out from any thread, answers run their continuations on one.
//!
//! Nobody waits for an answer: whoever calls leaves a continuation that sends the FUSE reply. Every call ends
//! exactly once: answered, overdue, or failed with the connection.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::limits::INFLIGHT_MAX;
use address_map::wire::{
    Answer, Call, FrameSocket, Hello, PROTOCOL_MAX, PROTOCOL_MIN, SocketError, Stale, ToController, ToVmds,
    Welcome,
};
use parking_lot::{Condvar, Mutex};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use thiserror::Error;
use tracing::{debug, warn};

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

struct Waiting {
    since: Instant,
    done: Continuation,
}

#[derive(Default)]
struct Calls {
    waiting: HashMap<u64, Waiting>,
    next: u64,
    closed: bool,
}

/// An open session with the controller.
pub(crate) struct Link {
    socket: FrameSocket,
    limits: LinkLimits,
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
    /// Opens the session: says hello and waits for the welcome.
    pub(crate) fn open(socket: FrameSocket, limits: LinkLimits) -> Result<(Self, Welcome), LinkError> {
        socket.set_send_timeout(limits.sending).map_err(LinkError::Setup)?;
        let wait_at_most = |time| {
            set_socket_timeout(&socket, Timeout::Recv, Some(time)).map_err(|e| LinkError::Setup(e.into()))
        };
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
        Ok((Self { socket, limits, calls: Mutex::default(), room: Condvar::new() }, welcome))
    }

    /// Asks the controller; `done` runs exactly once, on the receiving thread, or here if the call cannot be made.
    pub(crate) fn call(&self, call: Call, done: impl FnOnce(Outcome) + Send + 'static) {
        let id = match self.enter(Box::new(done)) {
            Ok(id) => id,
            Err(done) => return done(Err(Refusal::Io)),
        };
        if let Err(error) = self.socket.send(&ToController::Request { id, call }, None) {
            warn!(error = &error as &dyn std::error::Error, "a call could not be sent");
            if let Some(waiting) = self.take(id) {
                (waiting.done)(Err(Refusal::Io));
            }
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

    /// Receives until the connection ends, and says why it did. All calls have ended then.
    pub(crate) fn receive(&self, mut on_event: impl FnMut(Event)) -> LinkError {
        CONTINUES.set(true);
        let end = self.receive_until_error(&mut on_event);
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

    fn receive_until_error(&self, on_event: &mut impl FnMut(Event)) -> LinkError {
        let mut buffer = Vec::new();
        let mut swept = Instant::now();
        loop {
            let received = self.socket.receive::<ToVmds>(&mut buffer);
            if swept.elapsed() >= self.limits.tick {
                swept = Instant::now();
                self.fail_overdue(swept);
            }
            match received {
                Ok(Some((ToVmds::Reply { id, result }, descriptor))) => match self.take(id) {
                    Some(waiting) => (waiting.done)(result.map(|answer| (answer, descriptor))),
                    None => debug!(id, "an answer came too late"),
                },
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
        self.room.notify_all();
        for waiting in overdue {
            (waiting.done)(Err(Refusal::Io));
        }
    }

    /// Notes a call once there is room for it, and numbers it. Gives `done` back when there is none.
    fn enter(&self, done: Continuation) -> Result<u64, Continuation> {
        let mut calls = self.calls.lock();
        if !on_continuation_thread() {
            let full = |calls: &mut Calls| !calls.closed && calls.waiting.len() >= self.limits.inflight;
            self.room.wait_while_for(&mut calls, full, self.limits.deadline);
            if full(&mut calls) {
                return Err(done);
            }
        }
        if calls.closed {
            return Err(done);
        }
        calls.next += 1;
        let id = calls.next;
        calls.waiting.insert(id, Waiting { since: Instant::now(), done });
        Ok(id)
    }

    fn take(&self, id: u64) -> Option<Waiting> {
        let waiting = self.calls.lock().waiting.remove(&id);
        self.room.notify_one();
        waiting
    }

    fn tell(&self, message: &ToController) {
        // If it fails the connection is at its end, and with it everything the controller believes of this side.
        if let Err(error) = self.socket.send(message, None) {
            warn!(error = &error as &dyn std::error::Error, "a notice could not be sent");
        }
    }
}

#[cfg(test)]
mod tests;

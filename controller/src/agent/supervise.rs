//! One tenant's mount on this node: the FUSE connection, which the agent holds for as long as the mount lives, and
//! the VMDS that serves it, which is replaced whenever it ends.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use address_map::wire::FrameSocket;
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};
use thiserror::Error;

use super::device;
use super::health::Health;
use super::memory::Bound;
use super::pace;
use super::server::{self, End, Server};
use crate::logging::chain;
use crate::session::{DataPlane, Replaced, Session};

/// First delay before a VMDS that ended soon after its start is replaced; doubles each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest delay.
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A VMDS that served this long has proven itself: its successor starts at once. Starting one takes a few milliseconds,
/// so that one that fails this often costs the node little.
const PROVEN_AFTER: Duration = Duration::from_millis(250);
/// VMDSes that may end soon after their start before the next one is delayed.
const UNPROVEN_MAX: u32 = 3;
/// How long a VMDS may take to end once its mount is gone, or once it was killed.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// How long a replacement may take, from its start until it serves.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(15);

/// Why a VMDS could not be brought up.
#[derive(Debug, Error)]
pub(super) enum StartError {
    /// A system call failed.
    #[error("cannot start the VMDS {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// It did not get as far as serving.
    #[error("the VMDS does not serve")]
    Handshake(#[source] std::io::Error),
    /// It wants other terms than its predecessor, and the kernel cannot be told twice.
    #[error(
        "the new VMDS negotiates other features with the kernel than the one before; unmount and mount again"
    )]
    OtherTerms,
    /// It was there, but its predecessor's place was not free in time.
    #[error("the new VMDS did not take over within {} s", UPGRADE_DEADLINE.as_secs())]
    Late,
    /// Nothing is replaced any more.
    #[error("the mount is being taken away")]
    Ending,
}

/// A VMDS that has agreed with the kernel and waits for the word to begin.
struct Prepared {
    server: Server,
    /// Lets its link become the link of the mount; dropped, the link ends.
    turn: mpsc::Sender<()>,
}

/// What is seen of the process behind a mount.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// Process number; 0 while there is none.
    pub pid: u32,
    /// How many VMDSes have been started.
    pub generation: u32,
    /// Requests are being answered.
    pub serving: bool,
    /// Since when.
    pub since: SystemTime,
    /// Why the last VMDS ended, or could not be started.
    pub last_error: Option<String>,
    /// The mount is older than this controller.
    pub taken_over: bool,
}

struct State {
    observed: Observed,
    /// A descriptor of the process, to end it.
    process: Option<OwnedFd>,
    /// When it was started, in the kernel's ticks.
    started: u64,
    /// Why it was ended.
    killed_because: Option<&'static str>,
    /// A successor that waits for the word to begin.
    next: Option<Prepared>,
    /// The mount is being taken away.
    ending: bool,
}

/// What a mount is made of.
pub(super) struct Parts {
    pub plane: Arc<DataPlane>,
    pub session: Arc<Session>,
    pub tenant_name: String,
    pub program: PathBuf,
    pub uid: u32,
    pub device: Arc<OwnedFd>,
    pub device_number: u64,
    pub init_request: Vec<u8>,
    pub memory: Arc<Bound>,
    /// Called after each change of the process behind the mount.
    pub on_change: Box<dyn Fn(&TenantMount) + Send + Sync>,
}

/// See the module.
pub(super) struct TenantMount {
    parts: Parts,
    init_reply: OnceLock<Vec<u8>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Can be read once the process has been killed.
    doomed: Arc<OwnedFd>,
    pub health: Mutex<Health>,
    /// One replacement at a time.
    upgrading: Mutex<()>,
    /// Directories it is mounted on, in the order of mounting.
    pub dirs: Mutex<Vec<PathBuf>>,
}

impl TenantMount {
    /// A mount whose first VMDS serves when this returns.
    pub(super) fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let mount = Self::new(parts, 0, false)?;
        let first = mount.prepare()?;
        let first = mount.begin(first)?;
        mount.supervise_from(first)?;
        Ok(mount)
    }

    /// A mount taken over from a controller that is no more, with the VMDS that serves it.
    pub(super) fn adopt(
        parts: Parts,
        server: Server,
        link: FrameSocket,
        generation: u32,
        init_reply: Vec<u8>,
    ) -> Result<Arc<Self>, StartError> {
        let mount = Self::new(parts, generation, true)?;
        let _ = mount.init_reply.set(init_reply);
        mount.note_serving(&server).map_err(|source| mount.start_error(source))?;
        mount.converse(link, generation, || true).map_err(|source| mount.start_error(source))?;
        mount.supervise_from(server)?;
        Ok(mount)
    }

    fn new(parts: Parts, generation: u32, taken_over: bool) -> Result<Arc<Self>, StartError> {
        let doomed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| StartError::Start { program: parts.program.clone(), source: error.into() })?;
        let since = SystemTime::now();
        let observed = Observed { pid: 0, generation, serving: false, since, last_error: None, taken_over };
        let state =
            State { observed, process: None, started: 0, killed_because: None, next: None, ending: false };
        Ok(Arc::new(Self {
            parts,
            init_reply: OnceLock::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            doomed: Arc::new(doomed),
            health: Mutex::default(),
            upgrading: Mutex::default(),
            dirs: Mutex::default(),
        }))
    }

    fn supervise_from(self: &Arc<Self>, first: Server) -> Result<(), StartError> {
        let weak = Arc::downgrade(self);
        let supervisor = thread::Builder::new().name(format!("vmds-{}", self.parts.tenant_name));
        let started = supervisor.spawn(move || {
            pace::hurry();
            supervise(&weak, first);
        });
        started.map(drop).map_err(|source| self.start_error(source))
    }

    pub(super) fn observe(&self) -> Observed {
        self.state.lock().observed.clone()
    }

    /// When the VMDS was started, in the kernel's ticks.
    pub(super) fn process_started(&self) -> u64 {
        self.state.lock().started
    }

    /// The device number of the file system.
    pub(super) fn device_number(&self) -> u64 {
        self.parts.device_number
    }

    /// The kernel's first request, and the reply to it once there is one.
    pub(super) fn init(&self) -> (&[u8], Option<&[u8]>) {
        (&self.parts.init_request, self.init_reply.get().map(Vec::as_slice))
    }

    /// The tenant's name.
    pub(super) fn tenant_name(&self) -> &str {
        &self.parts.tenant_name
    }

    /// What the VMDS may use of the node's memory.
    pub(super) fn memory(&self) -> &Bound {
        &self.parts.memory
    }

    /// The session with the VMDS.
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.parts.session
    }

    /// What is to be called after each change of the mount.
    pub(super) fn on_change(&self) -> &(dyn Fn(&TenantMount) + Send + Sync) {
        &*self.parts.on_change
    }

    /// The mount is being taken away: the VMDS is not replaced when it ends.
    pub(super) fn expect_end(&self) {
        self.state.lock().ending = true;
        self.changed.notify_all();
    }

    /// The mount stays after all.
    pub(super) fn go_on(&self) {
        self.state.lock().ending = false;
    }

    /// Ends the VMDS at once. Unless the mount is being taken away, another one takes over.
    pub(super) fn kill(&self) {
        self.end_process(&self.state.lock());
    }

    /// As [`TenantMount::kill`], and tells why.
    pub(super) fn kill_because(&self, reason: &'static str) {
        let mut state = self.state.lock();
        state.killed_because = Some(reason);
        self.end_process(&state);
    }

    fn end_process(&self, state: &State) {
        if let Some(process) = &state.process {
            server::kill(process);
            // Full: it can be read already.
            let _ = rustix::io::write(&self.doomed, &1_u64.to_ne_bytes());
        }
    }

    /// Why the VMDS before the first one of this mount was given up.
    pub(super) fn note(&self, reason: String) {
        self.state.lock().observed.last_error.get_or_insert(reason);
    }

    /// Replaces the VMDS by one of the program as it is now, and waits until that one serves. If the new one does not
    /// get along with the kernel as it was told before, the old one goes on and nothing has happened.
    pub(super) fn upgrade(self: &Arc<Self>) -> Result<(), StartError> {
        let _alone = self.upgrading.lock();
        let deadline = Instant::now() + UPGRADE_DEADLINE;
        let next = self.prepare()?;
        let mut state = self.state.lock();
        let before = state.observed.pid;
        state.next = Some(next);
        self.end_process(&state);
        self.changed.notify_all();
        let mut outcome = Ok(());
        while outcome.is_ok() && (!state.observed.serving || state.observed.pid == before) {
            if state.ending {
                outcome = Err(StartError::Ending);
            } else if self.changed.wait_until(&mut state, deadline).timed_out() {
                outcome = Err(StartError::Late);
            }
        }
        let unused = state.next.take();
        drop(state);
        unused.into_iter().for_each(end_of_failed);
        outcome
    }

    /// Replaces the VMDS at any price, and waits until the one that is there now has ended.
    pub(super) fn replace_and_wait(self: &Arc<Self>) -> Replaced {
        let before = self.observe().pid;
        if before == 0 {
            return Replaced::NoProcess;
        }
        // With a successor that waits already, applications notice least.
        if let Err(error) = self.upgrade() {
            tracing::warn!(tenant = %self.tenant_name(), error = %chain(&error), "ending a VMDS without a successor");
        }
        let deadline = Instant::now() + END_DEADLINE;
        let mut state = self.state.lock();
        while state.observed.pid == before {
            self.end_process(&state);
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return Replaced::StillThere;
            }
        }
        Replaced::Done
    }

    /// Waits until the last VMDS has ended, however long it takes.
    pub(super) fn wait_ended(&self) {
        let mut state = self.state.lock();
        while state.observed.pid != 0 {
            self.changed.wait(&mut state);
        }
    }

    /// Waits a moment until the last VMDS has ended; ends it if it does not by itself.
    pub(super) fn make_end(&self) {
        let deadline = Instant::now() + END_DEADLINE;
        let mut state = self.state.lock();
        while state.observed.pid != 0 {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                tracing::warn!(tenant = %self.parts.tenant_name, "the VMDS did not end in time; ending it");
                drop(state);
                self.kill();
                return self.wait_ended();
            }
        }
    }

    /// It was unmounted, and nobody serves it any more.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.ending && state.observed.pid == 0
    }

    fn is_ending(&self) -> bool {
        self.state.lock().ending
    }

    fn start_error(&self, source: std::io::Error) -> StartError {
        StartError::Start { program: self.parts.program.clone(), source }
    }

    /// Brings up a VMDS that agrees with the kernel and waits for the word to begin.
    fn prepare(self: &Arc<Self>) -> Result<Prepared, StartError> {
        let Parts { program, uid, tenant_name, device, init_request, .. } = &self.parts;
        let (server, link) = Server::start(program, *uid, tenant_name, device, init_request)
            .map_err(|e| self.start_error(e))?;
        self.parts.memory.take_in(server.pid());
        let generation = {
            let observed = &mut self.state.lock().observed;
            observed.generation += 1;
            observed.generation
        };
        let (turn, its_turn) = mpsc::channel();
        let next = Prepared { server, turn };
        let agreed = self
            .converse(link, generation, move || its_turn.recv().is_ok())
            .map_err(|e| self.start_error(e))
            .and_then(|()| {
                let reply = next.server.init_reply().map_err(StartError::Handshake)?;
                self.agree(reply)
            });
        match agreed {
            Ok(()) => Ok(next),
            Err(error) => {
                end_of_failed(next);
                Err(error)
            }
        }
    }

    /// The kernel hears the first reply; later ones must say the same.
    fn agree(&self, reply: Vec<u8>) -> Result<(), StartError> {
        match self.init_reply.get() {
            Some(first) if *first == reply => Ok(()),
            Some(_) => Err(StartError::OtherTerms),
            None => {
                device::write_init_reply(&self.parts.device, &reply).map_err(StartError::Handshake)?;
                let _ = self.init_reply.set(reply);
                Ok(())
            }
        }
    }

    /// Lets a VMDS begin to serve.
    fn begin(&self, next: Prepared) -> Result<Server, StartError> {
        let Prepared { mut server, turn } = next;
        // If its link is gone, so is the VMDS; that is noticed like any other end.
        pace::slow_down_process(server.pid());
        let _ = turn.send(());
        server.begin().map_err(StartError::Handshake)?;
        self.note_serving(&server).map_err(|source| self.start_error(source))?;
        Ok(server)
    }

    fn note_serving(&self, server: &Server) -> std::io::Result<()> {
        let (process, started) = (server.process()?, server.started()?);
        {
            let mut state = self.state.lock();
            state.process = Some(process);
            state.started = started;
            state.observed.pid = server.pid();
            state.observed.serving = true;
            state.observed.since = SystemTime::now();
            self.changed.notify_all();
        }
        (self.parts.on_change)(self);
        Ok(())
    }

    /// Answers a VMDS's requests on a thread of their own, from its turn until the link breaks.
    fn converse(
        &self,
        link: FrameSocket,
        generation: u32,
        wait_for_turn: impl FnOnce() -> bool + Send + 'static,
    ) -> std::io::Result<()> {
        let Parts { plane, session, tenant_name, .. } = &self.parts;
        let (plane, session, tenant) = (plane.clone(), session.clone(), tenant_name.clone());
        let thread = thread::Builder::new().name(format!("link-{tenant}"));
        thread.spawn(move || {
            let its_turn = || {
                let come = wait_for_turn();
                pace::slow_down();
                come
            };
            if let Err(error) = plane.serve(&session, link, generation, its_turn) {
                tracing::error!(%tenant, error = %chain(&error), "cutting off the VMDS");
            }
        })?;
        Ok(())
    }

    fn ended(&self, reason: Option<String>) {
        let mut state = self.state.lock();
        state.process = None;
        // Whoever kills from now on finds the next one.
        let _ = rustix::io::read(&self.doomed, &mut [0; 8]);
        let reason = state.killed_because.take().map(str::to_owned).or(reason);
        state.observed.pid = 0;
        state.observed.serving = false;
        if reason.is_some() {
            state.observed.last_error = reason;
        }
        self.changed.notify_all();
    }

    /// Sleeps, unless the mount is taken away meanwhile or a successor is there.
    fn back_off(&self, delay: Duration) {
        let deadline = Instant::now() + delay;
        let mut state = self.state.lock();
        while !state.ending && state.next.is_none() {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }
}

/// Replaces the VMDS each time it ends, until the mount is taken away.
fn supervise(mount: &Weak<TenantMount>, first: Server) {
    let mut server = first;
    let mut delay = Delay::default();
    let Some(doomed) = mount.upgrade().map(|mount| mount.doomed.clone()) else { return };
    loop {
        let began = Instant::now();
        let end = server.wait(&doomed);
        let Some(mount) = mount.upgrade() else { return };
        let planned = mount.state.lock().next.take();
        let unmounted = matches!(&end, Ok(End::Gone(Some(status))) if status.success());
        if matches!(end, Ok(End::Lingers)) {
            // What it has asked for is nobody's any more; its end of the link may stay open for long.
            mount.session().hang_up();
        }
        let reason = mount.memory().was_reached().unwrap_or_else(|| describe(&end));
        mount.ended((!unmounted && planned.is_none()).then(|| reason.clone()));
        if unmounted {
            // Also if it was somebody else who has unmounted it.
            mount.expect_end();
        }
        if mount.is_ending() {
            planned.into_iter().for_each(end_of_failed);
            return await_if_lingering(server, &end);
        }
        if planned.is_none() {
            tracing::warn!(tenant = %mount.tenant_name(), %reason, "starting another VMDS");
            mount.back_off(delay.after(began.elapsed()));
        }
        let Some(next) = successor(&mount, planned, &mut delay) else {
            return await_if_lingering(server, &end);
        };
        await_if_lingering(std::mem::replace(&mut server, next), &end);
    }
}

/// A VMDS that serves, tried until there is one; `None` when the mount is taken away meanwhile.
fn successor(mount: &Arc<TenantMount>, planned: Option<Prepared>, delay: &mut Delay) -> Option<Server> {
    let mut planned = planned;
    loop {
        if mount.is_ending() {
            planned.into_iter().for_each(end_of_failed);
            return None;
        }
        let next = planned.take().or_else(|| mount.state.lock().next.take());
        let begun = next.map_or_else(|| mount.prepare(), Ok).and_then(|next| mount.begin(next));
        match begun {
            Ok(server) => return Some(server),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(tenant = %mount.tenant_name(), %error, "cannot start a VMDS; trying again");
                mount.ended(Some(error));
                mount.back_off(delay.next());
            }
        }
    }
}

/// How long to wait before the next VMDS: not at all as long as they live for a while.
#[derive(Default)]
struct Delay {
    unproven: u32,
}

impl Delay {
    /// A VMDS has lived this long.
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= PROVEN_AFTER {
            self.unproven = 0;
            return Duration::ZERO;
        }
        self.next()
    }

    fn next(&mut self) -> Duration {
        self.unproven = self.unproven.saturating_add(1);
        match self.unproven.checked_sub(UNPROVEN_MAX + 1) {
            None => Duration::ZERO,
            Some(doublings) => BACKOFF_FIRST.saturating_mul(1 << doublings.min(16)).min(BACKOFF_LAST),
        }
    }
}

fn end_of_failed(prepared: Prepared) {
    let mut server = prepared.server;
    server.kill();
    if let Err(error) = server.wait_gone() {
        tracing::warn!(%error, "cannot wait for a VMDS that was ended");
    }
}

/// Sees to it that a process that was not waited for to its end does not stay in the table of processes.
fn await_if_lingering(mut server: Server, end: &std::io::Result<End>) {
    if !matches!(end, Ok(End::Lingers)) {
        return;
    }
    let waiter = thread::Builder::new().name("vmds-lingers".into()).spawn(move || server.wait_gone());
    if let Err(error) = waiter {
        tracing::warn!(%error, "nobody waits for a VMDS that was ended");
    }
}

fn describe(end: &std::io::Result<End>) -> String {
    match end {
        Ok(End::Gone(Some(status))) => format!("the VMDS ended with {status}"),
        Ok(End::Gone(None)) => "the VMDS ended".to_owned(),
        Ok(End::Lingers) => "the VMDS was killed and waits for storage that does not answer".to_owned(),
        Err(error) => format!("the VMDS cannot be waited for: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_backs_off_and_a_long_life_forgives() {
        let mut delay = Delay::default();
        let short = PROVEN_AFTER / 2;
        let delays: Vec<_> = (0..5).map(|_| delay.after(short).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 100, 200]);
        (0..100).for_each(|_| assert!(delay.after(short) <= BACKOFF_LAST));
        assert_eq!(delay.after(PROVEN_AFTER), Duration::ZERO);
        assert_eq!(delay.after(short), Duration::ZERO);
    }
}

//! One tenant's mount on this node: the FUSE connection, which the agent holds for as long as the mount lives, and
//! the VMDS that serves it, which is replaced whenever it ends.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use address_map::wire::FrameSocket;
use parking_lot::{Condvar, Mutex};
use thiserror::Error;

use super::device;
use super::spawn::{Inheritance, spawn};
use crate::session::{DataPlane, Session};

/// First delay before a VMDS that ended soon after its start is replaced; doubles each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest delay.
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A VMDS that served this long has proven itself: its successor starts at once.
const PROVEN_AFTER: Duration = Duration::from_secs(10);
/// How long a VMDS may take to end once its mount is gone.
const END_DEADLINE: Duration = Duration::from_secs(5);

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
}

struct State {
    observed: Observed,
    /// The mount is being taken away.
    ending: bool,
}

/// See the module.
pub(super) struct TenantMount {
    plane: Arc<DataPlane>,
    session: Arc<Session>,
    tenant_name: String,
    program: PathBuf,
    uid: u32,
    device: Arc<OwnedFd>,
    device_number: u64,
    init_request: Vec<u8>,
    init_reply: OnceLock<Vec<u8>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Directories it is mounted on, in the order of mounting.
    pub dirs: Mutex<Vec<PathBuf>>,
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
}

impl TenantMount {
    /// A mount whose first VMDS serves when this returns.
    pub(super) fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let observed =
            Observed { pid: 0, generation: 0, serving: false, since: SystemTime::now(), last_error: None };
        let mount = Arc::new(Self {
            plane: parts.plane,
            session: parts.session,
            tenant_name: parts.tenant_name,
            program: parts.program,
            uid: parts.uid,
            device: parts.device,
            device_number: parts.device_number,
            init_request: parts.init_request,
            init_reply: OnceLock::new(),
            state: Mutex::new(State { observed, ending: false }),
            changed: Condvar::new(),
            dirs: Mutex::default(),
        });
        let first = mount.start_generation()?;
        let weak = Arc::downgrade(&mount);
        let supervisor = thread::Builder::new().name(format!("vmds-{}", mount.tenant_name));
        let started = supervisor.spawn(move || supervise(&weak, first));
        started.map_err(|source| mount.start_error(source))?;
        Ok(mount)
    }

    pub(super) fn observe(&self) -> Observed {
        self.state.lock().observed.clone()
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

    /// Ends the VMDS although the kernel may still have requests for it.
    pub(super) fn cut_off(&self) {
        self.session.disconnect();
    }

    /// The device number of the file system.
    pub(super) fn device_number(&self) -> u64 {
        self.device_number
    }

    /// The session with the VMDS.
    pub(super) fn session(&self) -> &Session {
        &self.session
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
                break;
            }
        }
        let pid = state.observed.pid;
        drop(state);
        if pid != 0 {
            tracing::warn!(tenant = %self.tenant_name, pid, "the VMDS did not end in time; ending it");
            kill(pid);
            self.wait_ended();
        }
    }

    fn is_ending(&self) -> bool {
        self.state.lock().ending
    }

    fn start_error(&self, source: std::io::Error) -> StartError {
        StartError::Start { program: self.program.clone(), source }
    }

    /// Brings up one VMDS; requests are being answered when this returns.
    fn start_generation(self: &Arc<Self>) -> Result<Child, StartError> {
        let generation = self.state.lock().observed.generation + 1;
        let (init_ours, init_theirs) =
            device::offer_init(&self.init_request).map_err(|e| self.start_error(e))?;
        let (link_ours, link_theirs) = FrameSocket::pair().map_err(|e| self.start_error(e))?;
        let inheritance = Inheritance {
            device: self.device.try_clone().map_err(|e| self.start_error(e))?,
            init: init_theirs,
            link: link_theirs.into(),
        };
        let mut child = spawn(&self.program, self.uid, &self.tenant_name, inheritance)
            .map_err(|e| self.start_error(e))?;
        self.state.lock().observed.generation = generation;
        self.converse(link_ours, generation).map_err(|e| self.start_error(e))?;
        if let Err(error) = self.pass_init_reply(&init_ours) {
            kill(child.id());
            let _ = child.wait();
            return Err(error);
        }
        let observed = &mut self.state.lock().observed;
        *observed = Observed {
            pid: child.id(),
            generation,
            serving: true,
            since: SystemTime::now(),
            last_error: observed.last_error.take(),
        };
        Ok(child)
    }

    /// Answers the VMDS's requests on a thread of their own, until the link breaks.
    fn converse(self: &Arc<Self>, link: FrameSocket, generation: u32) -> std::io::Result<()> {
        let (plane, session, tenant) = (self.plane.clone(), self.session.clone(), self.tenant_name.clone());
        let thread = thread::Builder::new().name(format!("link-{tenant}"));
        thread.spawn(move || {
            if let Err(error) = plane.serve(&session, link, generation) {
                tracing::error!(%tenant, error = &error as &dyn std::error::Error, "cutting off the VMDS");
            }
        })?;
        Ok(())
    }

    /// The kernel hears the first reply; later ones must say the same.
    fn pass_init_reply(&self, socket: &OwnedFd) -> Result<(), StartError> {
        let reply = device::receive_init_reply(socket).map_err(StartError::Handshake)?;
        match self.init_reply.get() {
            Some(first) if *first == reply => Ok(()),
            Some(_) => Err(StartError::OtherTerms),
            None => {
                device::write_init_reply(&self.device, &reply).map_err(StartError::Handshake)?;
                let _ = self.init_reply.set(reply);
                Ok(())
            }
        }
    }

    fn ended(&self, reason: Option<String>) {
        let observed = &mut self.state.lock().observed;
        observed.pid = 0;
        observed.serving = false;
        if reason.is_some() {
            observed.last_error = reason;
        }
        self.changed.notify_all();
    }

    /// Sleeps, unless the mount is taken away meanwhile.
    fn back_off(&self, delay: Duration) {
        let deadline = Instant::now() + delay;
        let mut state = self.state.lock();
        while !state.ending && !self.changed.wait_until(&mut state, deadline).timed_out() {}
    }
}

/// Replaces the VMDS each time it ends, until the mount is taken away.
fn supervise(mount: &Weak<TenantMount>, first: Child) {
    let mut running = Some(first);
    let mut delay = BACKOFF_FIRST;
    loop {
        let started = Instant::now();
        let status = running.take().map(|mut child| child.wait());
        let Some(mount) = mount.upgrade() else { return };
        if let Some(status) = status {
            let unmounted = status.as_ref().is_ok_and(ExitStatus::success);
            let reason = (!unmounted).then(|| describe(&status));
            mount.ended(reason.clone());
            if unmounted || mount.is_ending() {
                return;
            }
            let reason = reason.unwrap_or_default();
            tracing::warn!(tenant = %mount.tenant_name, %reason, "the VMDS ended; starting another one");
            if started.elapsed() >= PROVEN_AFTER {
                delay = BACKOFF_FIRST;
            } else if mount.observe().generation > 1 {
                mount.back_off(delay);
                delay = (delay * 2).min(BACKOFF_LAST);
            }
        }
        match mount.start_generation() {
            Ok(child) => running = Some(child),
            Err(error) => {
                let error = crate::logging::chain(&error);
                tracing::error!(tenant = %mount.tenant_name, %error, "cannot start a VMDS; trying again");
                mount.ended(Some(error));
                mount.back_off(delay);
                delay = (delay * 2).min(BACKOFF_LAST);
                if mount.is_ending() {
                    return;
                }
            }
        }
    }
}

fn describe(status: &std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("the VMDS ended with {status}"),
        Err(error) => format!("the VMDS cannot be waited for: {error}"),
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself a moment ago.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

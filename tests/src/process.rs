//! Commands with captured output and a deadline, and what `/proc` tells about a process.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::wait::wait_until;

/// How long a command may take unless it is told otherwise.
const COMMAND_DEADLINE: Duration = Duration::from_secs(180);
/// How long a killed process may take to be gone.
const GONE_DEADLINE: Duration = Duration::from_secs(10);

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    /// The command, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Outcome {
    /// Its exit code; fails the test when a signal ended it.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {self}", self.status.signal()))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}\n{}{}", self.command, self.status, self.stdout, self.stderr)
    }
}

/// Runs a command to its end and fails the test with everything it said unless it succeeds. Gives what it printed.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    let outcome = run(command);
    assert!(outcome.status.success(), "{outcome}");
    outcome.stdout
}

/// Runs a command to its end, however it ends.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    run_within(COMMAND_DEADLINE, command)
}

/// Like [`run`], for commands that may take longer, or must take less.
#[track_caller]
pub fn run_within(deadline: Duration, command: &mut Command) -> Outcome {
    let name = format!("{command:?}");
    let (out, err) = (scratch(), scratch());
    command.stdout(Stdio::from(out.try_clone().expect("duplicate a descriptor")));
    command.stderr(Stdio::from(err.try_clone().expect("duplicate a descriptor")));
    command.stdin(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {name}: {e}"));
    let status = wait_child(&mut child, deadline);
    let (stdout, stderr) = (contents(out), contents(err));
    let Some(status) = status else {
        let _ = child.kill();
        wait_child(&mut child, GONE_DEADLINE);
        panic!("{name} was not done after {deadline:?}\n{stdout}{stderr}");
    };
    Outcome { command: name, status, stdout, stderr }
}

/// Waits for a child to end, at most `deadline`.
pub(crate) fn wait_child(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let ended = await_end_of(Pid::from_child(child), deadline);
    ended.then(|| child.wait().expect("wait for a child"))
}

/// Waits for any process to end, at most `deadline`; answers whether it has.
pub(crate) fn await_end(process: Process, deadline: Duration) -> bool {
    let pid = Pid::from_raw(process.pid.cast_signed()).expect("processes have numbers");
    !process.is_alive() || await_end_of(pid, deadline)
}

fn await_end_of(pid: Pid, deadline: Duration) -> bool {
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let timeout = Timespec::try_from(deadline).expect("deadlines are short");
    let ready =
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)));
    ready.expect("poll a pidfd") > 0
}

fn scratch() -> File {
    tempfile::tempfile().expect("make a temporary file")
}

fn contents(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("rewind a temporary file");
    file.read_to_end(&mut bytes).expect("read a temporary file");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A process by number and start time, so that a reused number is never taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    started: u64,
}

impl Process {
    /// The process with this number, if there is one that has not ended.
    pub fn find(pid: u32) -> Option<Self> {
        let (_, started) = stat_of(pid)?;
        Some(Self { pid, started })
    }

    /// Whether it has not ended yet.
    pub fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Sends it a signal. Nothing happens when it has ended.
    pub fn signal(self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid.cast_signed())) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it at once, as the kernel's out-of-memory killer would, and waits until it is gone.
    #[track_caller]
    pub fn kill(self) {
        self.signal(Signal::KILL);
        wait_until("a killed process is gone", GONE_DEADLINE, || !self.is_alive());
    }
}

/// Parent and start time of a process that has not ended.
fn stat_of(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    match *fields.first()? {
        "Z" | "X" => None,
        _ => Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?)),
    }
}

/// The living children of a process.
pub fn children(parent: u32) -> Vec<Process> {
    let numbers = fs::read_dir("/proc").expect("/proc is readable").flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            let (of, started) = stat_of(pid)?;
            (of == parent).then_some(Process { pid, started })
        })
        .collect()
}

/// A field of `/proc/PID/status`, such as `CapEff`.
#[track_caller]
pub fn status_field(process: Process, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no field {field}")).trim().to_owned()
}

/// The environment of a process, as it was started.
#[track_caller]
pub fn env_of(process: Process) -> Vec<u8> {
    fs::read(format!("/proc/{}/environ", process.pid)).expect("the process lives")
}

/// The open descriptors of a process and where they lead.
#[track_caller]
pub fn fds_of(process: Process) -> Vec<(u32, PathBuf)> {
    let dir = fs::read_dir(format!("/proc/{}/fd", process.pid)).expect("the process lives");
    let mut fds: Vec<_> = dir
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    fds.sort_unstable();
    fds
}

/// All memory of a process that can be read, piece by piece. It should be stopped, or some of it may be missed.
#[track_caller]
pub fn memory_of(process: Process) -> Vec<Vec<u8>> {
    let of = |what: &str| format!("/proc/{}/{what}", process.pid);
    let maps = fs::read_to_string(of("maps")).expect("the process lives");
    let memory = File::open(of("mem")).expect("root may read memory");
    maps.lines().filter_map(readable).filter_map(|range| piece(&memory, range)).collect()
}

/// The addresses of a line of `/proc/PID/maps`, if they can be read.
fn readable(line: &str) -> Option<Range<u64>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    fields.next()?.starts_with('r').then_some(address(start)?..address(end)?)
}

/// A piece of a process's memory; `None` if it is the kernel's, or is gone.
fn piece(memory: &File, range: Range<u64>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
    memory.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes)
}

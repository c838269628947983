//! Code that runs inside the sandbox, and what it can do: its work, and nothing else.
//!
//! The test starts itself again; that process enters the sandbox as a VMDS does and carries out one task. There is no
//! test harness, because its threads would be outside.

// All of this crate is test code.
#![allow(clippy::unwrap_used)]

mod attacks;
mod fixture;
mod work;

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::Duration;

use address_map::wire::{AtDoor, FrameSocket};
use attacks::{ATTACKS, End, REAL};
use fixture::{Fixture, READY, TASK, UID, describe};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// Exit code of an attack that got through.
const GOT_THROUGH: u8 = 42;
/// The task of doing what a VMDS does.
const WORK: &str = "work";
/// Before the name of an attack: without the sandbox.
const OUTSIDE: &str = "outside: ";
/// The task of ending as a VMDS with a bug does.
const ABORT: &str = "abort";
/// The task of waiting for the end of its input.
const WAIT: &str = "wait";

fn main() -> ExitCode {
    if let Ok(task) = std::env::var(TASK) {
        return inside(&task);
    }
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/fuse").exists() {
        eprintln!("skipped: the sandbox is entered by root, and has /dev/fuse");
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 7] = [
        ("every_attack_is_written_down", every_attack_is_written_down),
        ("attacks_are_refused", attacks_are_refused),
        ("outside_they_would_succeed", outside_they_would_succeed),
        ("work_goes_on", work_goes_on),
        ("a_bug_ends_the_process", a_bug_ends_the_process),
        ("the_kernel_says_so_too", the_kernel_says_so_too),
        ("without_a_user_nothing_is_served", without_a_user_nothing_is_served),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// The process in the sandbox.
fn inside(task: &str) -> ExitCode {
    if let Some(attack) = task.strip_prefix(OUTSIDE) {
        return carry_out(attack);
    }
    let [file, socket, second] = attacks::inherited();
    if let Err(error) = vmds::sandbox::enter(UID) {
        eprintln!("{error}: {:?}", std::error::Error::source(&error));
        return ExitCode::FAILURE;
    }
    println!("{READY}");
    match task {
        WORK => work::work(file.as_fd(), second.as_fd(), socket),
        ABORT => std::process::abort(),
        WAIT => drop(FrameSocket::from(socket).receive::<AtDoor>(&mut Vec::new())),
        attack => return carry_out(attack),
    }
    ExitCode::SUCCESS
}

fn carry_out(name: &str) -> ExitCode {
    let (_, _, attack) = ATTACKS.iter().find(|(known, _, _)| *known == name).unwrap();
    let result = attack();
    let error = std::io::Error::last_os_error();
    println!("{name}: {result} {error}");
    if result < 0 { ExitCode::SUCCESS } else { ExitCode::from(GOT_THROUGH) }
}

/// The page about attacks has a row for each, in this order, and says which of them end the process.
fn every_attack_is_written_down() {
    let page = include_str!("../../../docs/ATTACKS.md");
    let (_, rows) = page.split_once("## Out of the process").unwrap();
    let (rows, _) = rows.split_once("\n## ").unwrap();
    let written: Vec<(&str, End)> = rows
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, refused_by)| match refused_by.split(" |").next().unwrap().contains("ends") {
            true => (name, End::Killed),
            false => (name, End::Refused),
        })
        .collect();
    let tried: Vec<(&str, End)> = ATTACKS.iter().map(|(name, end, _)| (*name, *end)).collect();
    // What only this architecture has comes last.
    assert!(written.starts_with(&tried), "docs/ATTACKS.md: {written:#?}\ntried: {tried:#?}");
    #[cfg(target_arch = "x86_64")]
    assert_eq!(written.len(), tried.len(), "docs/ATTACKS.md has attacks that are not tried");
}

fn attacks_are_refused() {
    let mut wrong = Vec::new();
    for (name, end, _) in ATTACKS {
        let output = Fixture::new().run(name);
        let said = String::from_utf8_lossy(&output.stdout);
        let entered = said.starts_with(READY);
        let ended = match end {
            End::Refused => output.status.code() == Some(0),
            End::Killed => output.status.signal() == Some(libc::SIGSYS),
        };
        if !(entered && ended) {
            wrong.push(format!("{name} should have been {end:?}: {}", describe(&output)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn outside_they_would_succeed() {
    for name in REAL {
        let output = Fixture::new().run(&format!("{OUTSIDE}{name}"));
        assert_eq!(output.status.code(), Some(i32::from(GOT_THROUGH)), "{name}: {}", describe(&output));
    }
}

fn work_goes_on() {
    let fixture = Fixture::new();
    let child = fixture.start(WORK);
    // A child that was ended says nothing, and this process has the other end open, too.
    set_socket_timeout(&fixture.socket, Timeout::Recv, Some(Duration::from_secs(60))).unwrap();
    let socket = FrameSocket::from(fixture.socket.try_clone().unwrap());
    let (message, _) = socket.receive::<AtDoor>(&mut Vec::new()).unwrap().unwrap();
    assert_eq!(message, AtDoor::Controller);
    let opened = tempfile::tempfile().unwrap();
    socket.send(&AtDoor::Controller, Some(opened.as_fd())).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", describe(&output));
    assert_eq!(opened.metadata().unwrap().len(), 8192);
}

fn a_bug_ends_the_process() {
    let output = Fixture::new().run(ABORT);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}", describe(&output));
    assert!(!output.status.core_dumped());
}

fn the_kernel_says_so_too() {
    let fixture = Fixture::new();
    let mut child = fixture.start(WAIT);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), READY);
    let proc = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap();
    let status = proc("status");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!((field("Seccomp:"), field("Seccomp_filters:"), field("NoNewPrivs:")), ("2", "2", "1"));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    let uid = UID.to_string();
    assert!(field("Uid:").split_whitespace().all(|id| id == uid) && field("Groups:").is_empty(), "{status}");
    assert!(field("Gid:").split_whitespace().all(|id| id == uid), "{status}");
    let limits = proc("limits");
    assert!(limits.lines().any(|line| line.starts_with("Max data size") && line.contains("1073741824")));
    rustix::net::send(&fixture.socket, b"end", rustix::net::SendFlags::empty()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn without_a_user_nothing_is_served() {
    let refused = fixture::vmds(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", describe(&refused));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("--uid") && said.contains("--no-sandbox"), "{said}");
    // It goes on and finds that nobody is there, but not without a complaint.
    let open = fixture::vmds(&["--no-sandbox"]);
    assert_eq!(open.status.code(), Some(1), "{}", describe(&open));
    let said = String::from_utf8_lossy(&open.stderr);
    assert!(said.contains("ERROR") && said.contains("--no-sandbox: whoever takes"), "{said}");
    assert!(said.contains("cannot open a session"), "{said}");
}

//! Who comes first when the node is busy: while a mount has no VMDS everything on it waits, so its next one is started
//! ahead of others. Whoever serves a tenant does so like everybody else.
//!
//! The system keeps this for each thread, and gives it on to threads and processes that one starts.

use std::fs;
use std::sync::OnceLock;

use rustix::process::{Pid, getpriority_process, setpriority_process};

/// By how much those who start a VMDS, and a VMDS that does not serve yet, are less nice than others.
const HURRY: i32 = 10;
/// The niceness of this process, as it was started.
static USUAL: OnceLock<i32> = OnceLock::new();

fn usual() -> i32 {
    *USUAL.get_or_init(|| getpriority_process(None).unwrap_or_default())
}

/// This thread, and what it starts, comes ahead of others from now on.
pub(super) fn hurry() {
    set(None, usual() - HURRY);
}

/// This thread is like all others from now on.
pub(super) fn slow_down() {
    set(None, usual());
}

/// A process that was started by somebody in a hurry is like all others from now on.
pub(super) fn slow_down_process(pid: u32) {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    let numbers = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).for_each(|thread| set(Some(thread), usual()));
}

fn set(thread: Option<Pid>, niceness: i32) {
    if let Err(error) = setpriority_process(thread, niceness) {
        // Without the right to do so everything is only a little later; a thread may also have ended.
        tracing::debug!(error = &error as &dyn std::error::Error, niceness, "cannot change a priority");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getuid;

    use super::*;

    #[test]
    fn what_a_hurried_thread_has_started_can_be_slowed_down() {
        if !getuid().is_root() {
            return;
        }
        let niceness = |pid: u32| getpriority_process(Pid::from_raw(pid.cast_signed())).unwrap();
        let started = std::thread::spawn(move || {
            hurry();
            let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let hurried = niceness(child.id());
            slow_down_process(child.id());
            let slowed = niceness(child.id());
            slow_down();
            child.kill().unwrap();
            child.wait().unwrap();
            (hurried, slowed, getpriority_process(None).unwrap())
        });
        let usual = usual();
        assert_eq!(started.join().unwrap(), ((usual - HURRY).max(-20), usual, usual));
    }
}

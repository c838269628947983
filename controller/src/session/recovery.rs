//! After a restart: nobody is served before the mounts that outlived the last controller have said what they hold.
//! Otherwise a file one of them has open could be deleted by another that was back first.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::SessionId;

/// How long a mount may take to come back before the others go on without it.
const RESUME_DEADLINE: Duration = Duration::from_secs(5);

/// The sessions that are awaited.
#[derive(Default)]
pub struct Recovery {
    awaited: Mutex<HashSet<SessionId>>,
    changed: Condvar,
    began: Mutex<Option<Instant>>,
}

impl Recovery {
    /// A session has outlived its controller; it will come back.
    pub fn expect(&self, session: SessionId) {
        self.began.lock().get_or_insert_with(Instant::now);
        self.awaited.lock().insert(session);
    }

    /// A session has said everything it holds, or is gone.
    pub(super) fn resumed(&self, session: SessionId) {
        let mut awaited = self.awaited.lock();
        if awaited.remove(&session) && awaited.is_empty() {
            self.changed.notify_all();
        }
    }

    /// Waits until nobody is awaited any more, or has been awaited for too long.
    pub(super) fn wait(&self) {
        let mut awaited = self.awaited.lock();
        if awaited.is_empty() {
            return;
        }
        let deadline = self.began.lock().unwrap_or_else(Instant::now) + RESUME_DEADLINE;
        while !awaited.is_empty() {
            if self.changed.wait_until(&mut awaited, deadline).timed_out() {
                tracing::error!(
                    missing = awaited.len(),
                    "mounts did not come back in time; going on without them"
                );
                awaited.clear();
                self.changed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_the_last_one_is_back() {
        let recovery = Recovery::default();
        recovery.wait();
        recovery.expect(SessionId(1));
        recovery.expect(SessionId(2));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| recovery.wait());
            recovery.resumed(SessionId(1));
            assert!(!waiting.is_finished());
            recovery.resumed(SessionId(2));
            waiting.join().unwrap();
        });
    }
}

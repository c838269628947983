//! Waiting for conditions. The only place in the tests that sleeps, and only between two looks.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks at `condition` until it gives something, and fails the test with `what` when `deadline` has passed.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain: {what}");
        sleep(LOOK_EVERY);
    }
}

/// Looks at `condition` until it holds, and fails the test with `what` when `deadline` has passed.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, deadline, || condition().then_some(()));
}

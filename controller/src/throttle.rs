//! Bounds how often something is told that somebody untrusted can bring about at will.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets a few events through per period, and counts the others.
pub(crate) struct Throttle {
    period: Duration,
    burst: u32,
    state: Mutex<State>,
}

struct State {
    began: Instant,
    passed: u32,
    held_back: u64,
}

impl Throttle {
    /// Lets `burst` events through in each `period`.
    pub(crate) fn new(burst: u32, period: Duration) -> Self {
        let state = State { began: Instant::now(), passed: 0, held_back: 0 };
        Self { period, burst, state: Mutex::new(state) }
    }

    /// Whether this event may be told: if so, how many since the last one that was told were not.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if now.duration_since(state.began) >= self.period {
            (state.began, state.passed) = (now, 0);
        }
        if state.passed == self.burst {
            state.held_back += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_and_told_with_the_next() {
        let throttle = Throttle::new(2, Duration::from_secs(10));
        let now = Instant::now();
        let at = |seconds| throttle.pass_at(now + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(2), at(3)], [Some(0), Some(0), None, None]);
        assert_eq!([at(11), at(12), at(13)], [Some(2), Some(0), None]);
    }
}

//! How many requests of one VMDS are without a reply. Beyond a bound its next ones are not read: it can keep neither
//! memory nor invalidations of others to itself without limit.

use std::sync::Arc;
use std::time::Duration;

use address_map::limits::INFLIGHT_MAX;
use parking_lot::{Condvar, Mutex};

/// Most requests of one VMDS without a reply: one that keeps to the protocol has half as many, and a few that follow from
/// replies on their way.
pub(super) const UNANSWERED_MAX: usize = 2 * INFLIGHT_MAX;

#[derive(Default)]
struct Count {
    unanswered: Mutex<usize>,
    fewer: Condvar,
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct InFlight(Arc<Count>);

/// A request without a reply; dropped with the reply.
pub(super) struct Unanswered(Arc<Count>);

impl InFlight {
    /// One more; waits until there may be. `None` if that takes longer than `patience`.
    pub(super) fn one_more(&self, patience: Duration) -> Option<Unanswered> {
        let mut unanswered = self.0.unanswered.lock();
        let full = |unanswered: &mut usize| *unanswered >= UNANSWERED_MAX;
        if self.0.fewer.wait_while_for(&mut unanswered, full, patience).timed_out() {
            return None;
        }
        *unanswered += 1;
        Some(Unanswered(self.0.clone()))
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let mut unanswered = self.0.unanswered.lock();
        *unanswered -= 1;
        if *unanswered + 1 == UNANSWERED_MAX {
            self.0.fewer.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_waits_for_a_reply() {
        let in_flight = InFlight::default();
        let mut all: Vec<_> =
            (0..UNANSWERED_MAX).map(|_| in_flight.one_more(Duration::ZERO).unwrap()).collect();
        assert!(in_flight.one_more(Duration::ZERO).is_none());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| in_flight.one_more(Duration::from_secs(60)).is_some());
            all.pop();
            assert!(next.join().unwrap());
        });
    }
}

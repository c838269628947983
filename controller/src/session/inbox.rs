//! What a VMDS has said and nobody has looked at yet.
//!
//! The thread that carries out a VMDS's requests reads them too, one after the other, and may be busy with one for long:
//! a pool takes its time. Somebody else then reads ahead for it, because others wait for the VMDS to say that it has
//! forgotten something, and it may have said so long ago.

use std::collections::VecDeque;
use std::sync::Arc;

use address_map::limits::INFLIGHT_MAX;
use address_map::wire::{FrameSocket, SocketError, ToController};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Most messages read ahead: what a VMDS that keeps to the protocol has under way, and as many notices.
const AHEAD_MAX: usize = 2 * INFLIGHT_MAX;

#[derive(Default)]
struct State {
    ahead: VecDeque<ToController>,
    /// How the conversation has ended, behind everything that was read ahead.
    end: Option<Result<(), SocketError>>,
    buffer: Vec<u8>,
}

/// See the module.
pub(super) struct Inbox {
    socket: Arc<FrameSocket>,
    /// Held while a message is waited for.
    state: Mutex<State>,
}

impl Inbox {
    /// For what comes out of `socket`.
    pub(super) fn new(socket: Arc<FrameSocket>) -> Self {
        Self { socket, state: Mutex::default() }
    }

    /// Waits for the next message; `None` when the VMDS is gone.
    pub(super) fn next(&self) -> Result<Option<ToController>, SocketError> {
        let mut state = self.state.lock();
        if let Some(message) = state.ahead.pop_front() {
            return Ok(Some(message));
        }
        if let Some(end) = state.end.take() {
            return end.map(|()| None);
        }
        Ok(self.socket.receive(&mut state.buffer)?.map(|(message, _)| message))
    }

    /// Reads what is there, unless whoever carries out the requests is about to; answers the invalidations that have been
    /// done and keeps everything else for later. Never waits.
    pub(super) fn read_ahead(&self) -> Vec<u64> {
        let mut forgotten = Vec::new();
        let Some(mut state) = self.state.try_lock() else { return forgotten };
        while state.end.is_none() && state.ahead.len() < AHEAD_MAX && self.has_more() {
            match self.socket.receive(&mut state.buffer) {
                Ok(Some((ToController::Forgotten { fence }, _))) => forgotten.push(fence),
                Ok(Some((message, _))) => state.ahead.push_back(message),
                Ok(None) => state.end = Some(Ok(())),
                Err(error) => state.end = Some(Err(error)),
            }
        }
        forgotten
    }

    fn has_more(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&*self.socket, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use address_map::ids::NodeId;

    use super::*;

    #[test]
    fn what_is_read_ahead_comes_in_order_and_the_end_last() {
        let (ours, theirs) = FrameSocket::pair().unwrap();
        let inbox = Inbox::new(Arc::new(ours));
        let dropped = |n| ToController::LeaseDropped { node: NodeId(n) };
        let said = [dropped(1), ToController::Forgotten { fence: 7 }, dropped(2), dropped(3)];
        said.iter().for_each(|message| theirs.send(message, None).unwrap());
        assert_eq!(inbox.read_ahead(), [7]);
        assert_eq!(inbox.next().unwrap(), Some(dropped(1)));
        theirs.send(&dropped(4), None).unwrap();
        drop(theirs);
        assert!(inbox.read_ahead().is_empty());
        let rest = std::iter::from_fn(|| inbox.next().unwrap());
        assert_eq!(rest.collect::<Vec<_>>(), [dropped(2), dropped(3), dropped(4)]);
    }

    #[test]
    fn only_so_much_is_read_ahead() {
        let (ours, theirs) = FrameSocket::pair().unwrap();
        let inbox = Inbox::new(Arc::new(ours));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let message = ToController::LeaseDropped { node: NodeId(1) };
                (0..2 * AHEAD_MAX).for_each(|_| theirs.send(&message, None).unwrap());
            });
            while inbox.state.lock().ahead.len() < AHEAD_MAX {
                inbox.read_ahead();
            }
            inbox.read_ahead();
            assert_eq!(inbox.state.lock().ahead.len(), AHEAD_MAX);
            (0..2 * AHEAD_MAX).for_each(|_| assert!(inbox.next().unwrap().is_some()));
        });
    }
}

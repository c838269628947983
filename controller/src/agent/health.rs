//! Mounts that do not answer. Programs that wait for one cannot even be killed, so the agent does not leave them to it:
//! a VMDS that leaves requests unanswered is asked for a sign of life; without one it is replaced, and its successor gets
//! its requests. Where that does not help either, the connection to the kernel is ended, and the mount is made anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::Agent;
use super::connections::Connections;
use super::supervise::TenantMount;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a VMDS that is waited for may take to give a sign of life.
const SIGN_WITHIN: Duration = Duration::from_secs(10);
/// How long programs wait for a mount of which no VMDS gives a sign of life before its connection is ended.
const ABORT_AFTER: Duration = Duration::from_secs(60);

/// What is known of the health of one mount.
#[derive(Default)]
pub(super) struct Health {
    /// Since when programs have been waiting without a sign of life.
    silent_since: Option<Instant>,
    question: Option<Question>,
}

struct Question {
    generation: u32,
    asked: Instant,
    answered: Arc<AtomicBool>,
}

/// What is to be done about a mount.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Ask,
    Replace,
    Abort,
}

impl Health {
    /// What follows from `waiting` requests at a mount whose VMDS is `serving` as this `generation`.
    fn judge(&mut self, waiting: u64, serving: bool, generation: u32, now: Instant) -> Verdict {
        let answered = self.question.as_ref().is_some_and(|q| q.answered.load(Ordering::Acquire));
        if waiting == 0 || answered {
            *self = Self::default();
            return Verdict::Nothing;
        }
        let silent_since = *self.silent_since.get_or_insert(now);
        if now - silent_since >= ABORT_AFTER {
            return Verdict::Abort;
        }
        match &self.question {
            _ if !serving => Verdict::Nothing,
            // Seen waiting once may be anything.
            None if silent_since == now => Verdict::Nothing,
            Some(question) if question.generation == generation => {
                if now - question.asked < SIGN_WITHIN {
                    Verdict::Nothing
                } else {
                    Verdict::Replace
                }
            }
            _ => Verdict::Ask,
        }
    }
}

/// Looks after the mounts of an agent, until it is gone.
pub(super) fn start(agent: &Arc<Agent>) -> std::io::Result<()> {
    let connections = match Connections::open() {
        Ok(connections) => connections,
        Err(error) => {
            tracing::warn!(%error, "the kernel does not tell who waits for mounts; a VMDS that hangs is not noticed");
            return Ok(());
        }
    };
    let agent = Arc::downgrade(agent);
    thread::Builder::new().name("health".into()).spawn(move || run(&agent, &connections))?;
    Ok(())
}

fn run(agent: &Weak<Agent>, connections: &Connections) {
    loop {
        thread::sleep(LOOK_EVERY);
        let Some(agent) = agent.upgrade() else { return };
        for mount in agent.all_mounts() {
            // Where there is no connection (any more) nobody waits.
            let waiting = connections.waiting(mount.device_number()).unwrap_or(0);
            agent.look_after(&mount, waiting, connections);
        }
    }
}

impl Agent {
    fn look_after(&self, mount: &Arc<TenantMount>, waiting: u64, connections: &Connections) {
        let seen = mount.observe();
        let mut health = mount.health.lock();
        let tenant = mount.tenant_name();
        match health.judge(waiting, seen.serving, seen.generation, Instant::now()) {
            Verdict::Nothing => {}
            Verdict::Ask => {
                let answered = Arc::new(AtomicBool::new(false));
                let heard = answered.clone();
                health.question =
                    Some(Question { generation: seen.generation, asked: Instant::now(), answered });
                let sign = Box::new(move || heard.store(true, Ordering::Release));
                self.plane.hub.ask_for_sign_of_life(mount.session(), sign);
            }
            Verdict::Replace => {
                tracing::warn!(%tenant, pid = seen.pid, waiting, "the VMDS gives no sign of life; replacing it");
                mount.kill_because("the VMDS gave no sign of life while requests waited for it");
            }
            Verdict::Abort => {
                drop(health);
                tracing::warn!(
                    %tenant,
                    waiting,
                    "no VMDS answers; ending the connection, programs that wait get errors"
                );
                if let Err(error) = connections.abort(mount.device_number()) {
                    tracing::error!(%tenant, %error, "cannot end the connection");
                }
                self.abandon(mount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(health: &mut Health, generation: u32, asked: Instant) -> Arc<AtomicBool> {
        let answered = Arc::new(AtomicBool::new(false));
        health.question = Some(Question { generation, asked, answered: answered.clone() });
        answered
    }

    #[test]
    fn a_silent_vmds_is_asked_then_replaced_then_given_up() {
        let (mut health, start) = (Health::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.judge(3, true, 1, start), Verdict::Nothing);
        assert_eq!(health.judge(3, true, 1, after(2)), Verdict::Ask);
        ask(&mut health, 1, after(2));
        assert_eq!(health.judge(3, true, 1, after(4)), Verdict::Nothing);
        assert_eq!(health.judge(3, true, 1, after(12)), Verdict::Replace);
        // The next one is asked too, and given its time.
        assert_eq!(health.judge(3, true, 2, after(14)), Verdict::Ask);
        ask(&mut health, 2, after(14));
        assert_eq!(health.judge(3, true, 2, after(16)), Verdict::Nothing);
        assert_eq!(health.judge(3, true, 2, after(60)), Verdict::Abort);
    }

    #[test]
    fn a_sign_of_life_or_nobody_waiting_ends_the_matter() {
        let (mut health, start) = (Health::default(), Instant::now());
        let long = start + ABORT_AFTER;
        health.judge(3, true, 1, start);
        ask(&mut health, 1, start).store(true, Ordering::Release);
        assert_eq!(health.judge(3, true, 1, long), Verdict::Nothing);
        assert!(health.silent_since.is_none() && health.question.is_none());
        health.judge(3, true, 1, long);
        assert_eq!(health.judge(0, true, 1, long + ABORT_AFTER), Verdict::Nothing);
        assert!(health.silent_since.is_none());
    }

    #[test]
    fn waiting_for_a_vmds_that_cannot_be_started_ends_too() {
        let (mut health, start) = (Health::default(), Instant::now());
        assert_eq!(health.judge(1, false, 1, start), Verdict::Nothing);
        assert_eq!(health.judge(1, false, 9, start + ABORT_AFTER / 2), Verdict::Nothing);
        assert_eq!(health.judge(1, false, 20, start + ABORT_AFTER), Verdict::Abort);
    }
}

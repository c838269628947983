//! The state machine of leases, step by step.

use std::sync::Mutex as StdMutex;

use address_map::ids::Ino;
use address_map::wire::{Lease, Near};

use super::*;
use crate::testing::{held, held_as};

const OWN: NodeId = NodeId(7);
const READ: Want = Want::Open { write: false };
const WRITE: Want = Want::Open { write: true };
const CHANGE: Want = Want::Use { write: true };

fn foreign() -> NodeId {
    NodeId::new(Slot(2), Ino(7))
}

/// What requests were answered, in order.
#[derive(Clone, Default)]
struct Log(Arc<StdMutex<Vec<String>>>);

impl Log {
    fn waiter(&self, name: &str) -> impl FnOnce(Result<Granted, Denied>) + Send + 'static {
        let (log, name) = (self.clone(), name.to_owned());
        move |granted| {
            let text = match granted {
                Ok(granted) => format!("{name} {:?}", granted.backing),
                Err(denied) => format!("{name}: {denied}"),
            };
            log.0.lock().unwrap().push(text);
        }
    }

    fn closer(&self, name: &str) -> impl FnOnce() + Send + 'static {
        let (log, name) = (self.clone(), name.to_owned());
        move || log.0.lock().unwrap().push(name)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Takes the local steps and names those for the controller.
fn run(steps: Steps) -> Vec<String> {
    let mut orders = Vec::new();
    for step in steps {
        match step {
            Step::Ask { node, write, .. } => orders.push(format!("ask {node} {write}")),
            Step::CloseWrite { node } => orders.push(format!("close {node}")),
            Step::Drop { node, forgotten: false, .. } => orders.push(format!("drop {node}")),
            Step::Drop { node, forgotten: true, .. } => orders.push(format!("forget {node}")),
            Step::Discard(_) => {}
            Step::Answer(done, granted) => done(granted),
            Step::Released(done) => done(),
        }
    }
    orders
}

fn leases() -> Leases {
    let leases = Leases::new(2, 4);
    leases.allow_passthrough();
    leases
}

/// A lease of what a disk cache has of an object.
fn copy() -> Held {
    let near = Some(Near { tag: 1, chunk: 10, end: 10 });
    let plain = held(b"0123456789", false).lease;
    Held::new(crate::testing::file(b"0123456789"), Lease { floating: true, near, ..plain })
}

#[test]
fn a_copy_is_given_back_when_the_last_handle_is_closed() {
    let (leases, log) = (leases(), Log::default());
    assert_eq!(run(leases.want(OWN, READ, log.waiter("a"))), ["ask 0:7 false"]);
    assert!(run(leases.want(OWN, READ, log.waiter("b"))).is_empty());
    assert!(run(leases.answered(OWN, Ok(copy()))).is_empty());
    assert!(run(leases.release(OWN, false, log.closer("a closed"))).is_empty());
    assert!(leases.held(OWN).is_some());
    assert_eq!(run(leases.release(OWN, false, log.closer("b closed"))), ["drop 0:7"]);
    assert!(leases.held(OWN).is_none());
    // Opened again meanwhile: asked for again, and kept while it is open.
    assert!(run(leases.want(OWN, READ, log.waiter("c"))).is_empty());
    assert_eq!(run(leases.dropped(OWN)), ["ask 0:7 false"]);
    assert!(run(leases.answered(OWN, Ok(copy()))).is_empty());
    assert!(leases.held(OWN).is_some());
    assert_eq!(log.take(), ["a None", "b None", "a closed", "b closed", "c None"]);
}

#[test]
fn one_question_serves_all_who_wait_and_later_readers_ask_nothing() {
    let (leases, log) = (leases(), Log::default());
    assert_eq!(run(leases.want(OWN, READ, log.waiter("a"))), ["ask 0:7 false"]);
    assert!(run(leases.want(OWN, READ, log.waiter("b"))).is_empty());
    assert!(log.take().is_empty());
    // "b" came while the question was under way and is content with its answer.
    assert!(run(leases.answered(OWN, Ok(held_as(false, Some(9))))).is_empty());
    assert_eq!(log.take(), ["a Some(9)", "b Some(9)"]);
    assert!(run(leases.want(OWN, READ, log.waiter("c"))).is_empty());
    assert_eq!(log.take(), ["c Some(9)"]);
}

#[test]
fn the_first_writer_asks_and_the_last_one_reports() {
    let (leases, log) = (leases(), Log::default());
    run(leases.want(OWN, READ, log.waiter("r")));
    run(leases.answered(OWN, Ok(held_as(false, Some(9)))));
    assert_eq!(run(leases.want(OWN, WRITE, log.waiter("w1"))), ["ask 0:7 true"]);
    run(leases.answered(OWN, Ok(held_as(true, Some(9)))));
    assert!(run(leases.want(OWN, WRITE, log.waiter("w2"))).is_empty());
    assert!(leases.is_sole_writer(OWN));
    assert!(run(leases.release(OWN, true, log.closer("w1 closed"))).is_empty());
    assert_eq!(run(leases.release(OWN, true, log.closer("w2 closed"))), ["close 0:7"]);
    // A writer that comes now waits for the report, so that the controller hears both in this order.
    assert!(run(leases.want(OWN, WRITE, log.waiter("w3"))).is_empty());
    assert_eq!(run(leases.closed(OWN)), ["ask 0:7 true"]);
    assert!(run(leases.answered(OWN, Ok(held_as(true, Some(9))))).is_empty());
    assert_eq!(log.take(), ["r Some(9)", "w1 Some(9)", "w2 Some(9)", "w1 closed", "w2 closed", "w3 Some(9)"]);
}

#[test]
fn a_refused_writer_does_not_stop_readers() {
    let (leases, log) = (leases(), Log::default());
    run(leases.want(OWN, READ, log.waiter("first")));
    run(leases.want(OWN, WRITE, log.waiter("w")));
    run(leases.want(foreign(), READ, log.waiter("other")));
    run(leases.answered(OWN, Err(Refusal::Busy)));
    assert_eq!(log.take(), [format!("first: {}", Refusal::Busy)]);
    run(leases.want(OWN, READ, log.waiter("r")));
    assert_eq!(run(leases.answered(OWN, Err(Refusal::ReadOnly))), ["ask 0:7 false"]);
    run(leases.answered(OWN, Ok(held_as(false, None))));
    assert_eq!(log.take(), [format!("w: {}", Refusal::ReadOnly), "r None".into()]);
}

#[test]
fn the_mode_stays_while_handles_are_open() {
    let (leases, log) = (leases(), Log::default());
    run(leases.want(OWN, READ, log.waiter("a")));
    run(leases.answered(OWN, Ok(held_as(false, None))));
    run(leases.want(OWN, WRITE, log.waiter("b")));
    run(leases.answered(OWN, Ok(held_as(true, Some(3)))));
    run(leases.release(OWN, false, log.closer("-")));
    run(leases.release(OWN, true, log.closer("-")));
    run(leases.closed(OWN));
    run(leases.want(OWN, READ, log.waiter("c")));
    assert_eq!(log.take(), ["a None", "b None", "-", "-", "c Some(3)"]);
}

#[test]
fn every_opening_of_a_foreign_file_is_asked_for_and_never_passed_through() {
    let (leases, log) = (leases(), Log::default());
    run(leases.want(foreign(), READ, log.waiter("a")));
    run(leases.answered(foreign(), Ok(held_as(false, Some(9)))));
    assert_eq!(run(leases.want(foreign(), READ, log.waiter("b"))), ["ask 2:7 false"]);
    run(leases.answered(foreign(), Err(Refusal::NotFound)));
    assert!(run(leases.want(foreign(), Want::Use { write: false }, log.waiter("use"))).is_empty());
    assert_eq!(log.take(), ["a None".into(), format!("b: {}", Refusal::NotFound), "use None".into()]);
}

#[test]
fn an_orphan_goes_with_its_last_handle() {
    let (leases, log) = (leases(), Log::default());
    assert!(run(leases.orphaned(OWN)).is_empty(), "nothing is held");
    run(leases.want(OWN, READ, log.waiter("a")));
    run(leases.answered(OWN, Ok(held_as(false, None))));
    assert!(run(leases.orphaned(OWN)).is_empty(), "a handle is open");
    assert_eq!(run(leases.release(OWN, false, log.closer("-"))), ["drop 0:7"]);
    assert!(leases.held(OWN).is_none());
    // Whoever comes before the controller has been told waits.
    assert!(run(leases.want(OWN, READ, log.waiter("b"))).is_empty());
    assert_eq!(run(leases.dropped(OWN)), ["ask 0:7 false"]);
    run(leases.answered(OWN, Err(Refusal::NotFound)));
    assert!(leases.0.lock().entries.is_empty());
}

#[test]
fn the_longest_idle_lease_goes_first_and_open_ones_never() {
    let (leases, log) = (leases(), Log::default());
    let open = |ino, release: bool| {
        run(leases.want(NodeId(ino), READ, log.waiter("-")));
        let mut orders = run(leases.answered(NodeId(ino), Ok(held_as(false, None))));
        if release {
            orders.extend(run(leases.release(NodeId(ino), false, log.closer("-"))));
        }
        orders
    };
    assert!(open(10, false).is_empty());
    assert!(open(11, true).is_empty());
    assert_eq!(open(12, true), ["drop 0:11"]);
    assert!(leases.held(NodeId(10)).is_some() && leases.held(NodeId(12)).is_some());
    run(leases.dropped(NodeId(11)));
    assert_eq!(leases.0.lock().entries.len(), 2);
}

#[test]
fn when_no_descriptor_is_left_an_open_fails() {
    let (leases, log) = (leases(), Log::default());
    for ino in 10..14 {
        run(leases.want(NodeId(ino), READ, log.waiter("-")));
        run(leases.answered(NodeId(ino), Ok(held_as(false, None))));
    }
    log.take();
    assert!(!leases.has_room());
    assert!(run(leases.want(NodeId(14), READ, log.waiter("a"))).is_empty());
    assert_eq!(log.take(), [format!("a: {}", Denied::TooManyFiles)]);
}

#[test]
fn a_recall_closes_and_what_was_granted_before_it_is_not_used() {
    let (leases, log) = (leases(), Log::default());
    run(leases.want(foreign(), WRITE, log.waiter("a")));
    run(leases.answered(foreign(), Ok(held_as(true, None))));
    run(leases.want(foreign(), READ, log.waiter("b")));
    let (nodes, steps) = leases.recall(Slot(2));
    assert!(run(steps).is_empty());
    assert_eq!(nodes, [foreign()]);
    assert!(leases.held(foreign()).is_none());
    assert_eq!(run(leases.answered(foreign(), Ok(held_as(false, None)))), ["ask 2:7 false"]);
    run(leases.answered(foreign(), Err(Refusal::NotFound)));
    assert_eq!(log.take(), ["a None".into(), format!("b: {}", Refusal::NotFound)]);
    // The open handle asks once more when it is used, and is refused.
    assert_eq!(run(leases.want(foreign(), CHANGE, log.waiter("use"))), ["ask 2:7 true"]);
    run(leases.answered(foreign(), Err(Refusal::NotFound)));
    assert_eq!(log.take(), [format!("use: {}", Refusal::NotFound)]);
    assert!(run(leases.release(foreign(), true, log.closer("-"))).is_empty());
    assert!(leases.0.lock().entries.is_empty());
}

#[test]
fn handles_of_an_earlier_process_do_not_count() {
    let (leases, log) = (leases(), Log::default());
    run(leases.want(OWN, WRITE, log.waiter("new")));
    run(leases.answered(OWN, Ok(held_as(true, None))));
    assert!(run(leases.release_unknown(OWN, true, log.closer("old closed"))).is_empty());
    assert!(leases.is_sole_writer(OWN));
    assert_eq!(run(leases.release(OWN, true, log.closer("new closed"))), ["close 0:7"]);
    run(leases.closed(OWN));
    // Without any lease the controller still takes size and times once more.
    let other = NodeId(8);
    assert_eq!(run(leases.release_unknown(other, true, log.closer("other"))), ["close 0:8"]);
    run(leases.closed(other));
    assert_eq!(log.take(), ["new None", "old closed", "new closed", "other"]);
}

#[test]
fn what_the_kernel_has_forgotten_is_told_once_nothing_goes_on_with_it() {
    let (leases, log) = (leases(), Log::default());
    // Of what nothing is known, too: a process before this one may have had it open.
    assert_eq!(run(leases.forgotten(OWN)), ["forget 0:7"]);
    // What is asked for meanwhile is asked for afterwards.
    assert!(run(leases.want(OWN, CHANGE, log.waiter("used"))).is_empty());
    assert_eq!(run(leases.dropped(OWN)), ["ask 0:7 true"]);
    run(leases.answered(OWN, Ok(held_as(true, None))));
    assert!(run(leases.has_changed(OWN)).is_empty());
    // The last handle of that process is closed, and the kernel forgets before the controller knows.
    assert_eq!(run(leases.release_unknown(OWN, true, log.closer("closed"))), ["close 0:7"]);
    assert!(run(leases.forgotten(OWN)).is_empty());
    assert_eq!(run(leases.closed(OWN)), ["forget 0:7"]);
    assert!(run(leases.dropped(OWN)).is_empty() && leases.0.lock().entries.is_empty());
    // A handle of this process keeps its lease until it is closed.
    run(leases.want(OWN, READ, log.waiter("open")));
    run(leases.answered(OWN, Ok(held_as(false, None))));
    assert!(run(leases.forgotten(OWN)).is_empty());
    assert_eq!(run(leases.release(OWN, false, log.closer("-"))), ["forget 0:7"]);
}

#[test]
fn a_file_created_for_reading_is_reported_when_it_is_closed() {
    let (leases, log) = (leases(), Log::default());
    let (granted, steps) = leases.created(OWN, held_as(true, Some(4)), false);
    assert!(run(steps).is_empty());
    assert_eq!(granted.backing, Some(4));
    assert_eq!(run(leases.release(OWN, false, log.closer("-"))), ["close 0:7"]);
}

#[test]
fn the_last_writer_is_reported_only_when_a_change_that_was_given_up_has_ended() {
    let (leases, log) = (leases(), Log::default());
    run(leases.want(OWN, WRITE, log.waiter("w")));
    run(leases.answered(OWN, Ok(held_as(true, None))));
    run(leases.want(OWN, CHANGE, log.waiter("one")));
    run(leases.want(OWN, CHANGE, log.waiter("two")));
    assert!(run(leases.release(OWN, true, log.closer("closed"))).is_empty());
    assert_eq!(log.take(), ["w None", "one None", "two None", "closed"], "who closes does not wait");
    assert!(run(leases.orphaned(OWN)).is_empty());
    assert!(leases.surrender(OWN).is_none() && leases.is_open(OWN));
    assert!(run(leases.has_changed(OWN)).is_empty());
    assert_eq!(run(leases.has_changed(OWN)), ["close 0:7"]);
    assert_eq!(run(leases.closed(OWN)), ["drop 0:7"]);
}

#[test]
fn no_last_writer_is_reported_while_a_handle_of_an_earlier_process_is_used() {
    let (leases, log) = (leases(), Log::default());
    assert_eq!(run(leases.want(OWN, CHANGE, log.waiter("one"))), ["ask 0:7 true"]);
    run(leases.answered(OWN, Ok(held_as(true, None))));
    assert!(run(leases.release_unknown(OWN, true, log.closer("another closed"))).is_empty());
    assert_eq!(run(leases.has_changed(OWN)), ["close 0:7"]);
    // What comes now waits, and begins with a lease of its own.
    assert!(run(leases.want(OWN, CHANGE, log.waiter("two"))).is_empty());
    assert_eq!(run(leases.closed(OWN)), ["ask 0:7 true"]);
    run(leases.answered(OWN, Ok(held_as(true, None))));
    assert!(run(leases.has_changed(OWN)).is_empty());
    assert_eq!(run(leases.release_unknown(OWN, true, log.closer("last closed"))), ["close 0:7"]);
    run(leases.closed(OWN));
    assert_eq!(log.take(), ["one None", "another closed", "two None", "last closed"]);
}

#[test]
fn a_change_that_ends_after_a_recall_leaves_nothing() {
    let (leases, log) = (leases(), Log::default());
    run(leases.want(foreign(), WRITE, log.waiter("w")));
    run(leases.answered(foreign(), Ok(held_as(true, None))));
    run(leases.want(foreign(), CHANGE, log.waiter("c")));
    run(leases.release(foreign(), true, log.closer("-")));
    leases.recall(Slot(2));
    assert!(run(leases.has_changed(foreign())).is_empty());
    assert!(leases.0.lock().entries.is_empty());
}

#[test]
fn who_writes_beside_others_is_no_sole_writer_until_the_next_time() {
    let leases = Leases::new(10, 10);
    let close = |leases: &Leases| {
        let steps = leases.release(OWN, true, || {});
        assert!(matches!(steps.front(), Some(Step::CloseWrite { .. })));
        leases.closed(OWN);
    };
    let (_granted, _steps) = leases.created(OWN, held(b"", true), true);
    assert!(leases.is_sole_writer(OWN));
    leases.contended(OWN);
    assert!(!leases.is_sole_writer(OWN), "somebody else has begun");
    close(&leases);

    // A question that is on its way may be answered from before somebody else began.
    for (told, alone, sole) in [(false, true, true), (false, false, false), (true, true, false)] {
        let steps = leases.want(OWN, Want::Open { write: true }, |_| {});
        assert!(matches!(steps.front(), Some(Step::Ask { write: true, .. })));
        if told {
            leases.contended(OWN);
        }
        let lease = Lease { alone, ..held(b"", true).lease };
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        let steps = leases.answered(OWN, Ok(Held::new(fd, lease)));
        steps.into_iter().for_each(|step| {
            if let Step::Answer(done, granted) = step {
                done(granted)
            }
        });
        assert_eq!(leases.is_sole_writer(OWN), sole, "told {told}, alone {alone}");
        close(&leases);
    }
}

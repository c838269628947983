//! The pool, and what happens when storage does not answer.

use std::sync::mpsc::{self, Receiver, Sender};

use super::*;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(20);

/// Who has answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    OfJob,
    TooLate,
}

/// A job that says that it has begun, waits to be let go, and answers.
struct Stuck {
    begun: Receiver<()>,
    release: Sender<()>,
    answer: Receiver<Answer>,
}

fn submit_stuck(pool: &IoPool) -> Stuck {
    let ((begin, begun), (release, held), (tell, answer)) =
        (mpsc::channel(), mpsc::channel(), mpsc::channel());
    pool.submit(
        tell,
        |tell| tell.send(Answer::TooLate).unwrap(),
        move |owed| {
            begin.send(()).unwrap();
            let _ = held.recv();
            if let Some(tell) = owed.take() {
                let _ = tell.send(Answer::OfJob);
            }
        },
    );
    Stuck { begun, release, answer }
}

fn all_stuck(pool: &IoPool) -> Vec<Stuck> {
    let stuck: Vec<_> = (0..THREADS_MAX).map(|_| submit_stuck(pool)).collect();
    stuck.iter().for_each(|stuck| stuck.begun.recv().unwrap());
    stuck
}

#[test]
fn what_is_done_in_time_is_answered_by_who_did_it() {
    let pool = IoPool::new(LONG);
    for _ in 0..1000 {
        let job = submit_stuck(&pool);
        job.release.send(()).unwrap();
        assert_eq!(job.answer.recv().unwrap(), Answer::OfJob);
    }
    assert!(pool.shared.state.lock().at_work.len() <= THREADS_MAX);
}

#[test]
fn what_is_late_is_answered_all_the_same_and_what_was_not_begun_never_is() {
    let pool = IoPool::new(SHORT);
    let stuck = all_stuck(&pool);
    let queued = submit_stuck(&pool);
    for job in &stuck {
        assert_eq!(job.answer.recv().unwrap(), Answer::TooLate);
    }
    assert_eq!(queued.answer.recv().unwrap(), Answer::TooLate);
    assert_eq!(pool.shared.state.lock().at_work.len(), THREADS_MAX);
    // The file system answers again: so does the pool.
    drop(stuck);
    assert!(queued.begun.recv().is_err(), "it was begun after its answer had been given");
    let patient = submit_stuck(&pool);
    patient.release.send(()).unwrap();
    patient.answer.recv().unwrap();
}

#[test]
fn when_nothing_moves_for_too_long_more_are_refused_at_once() {
    let pool = IoPool::new(LONG / 600);
    let stuck = all_stuck(&pool);
    let queued: Vec<_> = (THREADS_MAX..REQUESTS_MAX).map(|_| submit_stuck(&pool)).collect();
    for _ in 0..2 {
        let refused = submit_stuck(&pool);
        assert_eq!(refused.answer.try_recv().unwrap(), Answer::TooLate);
        assert!(pool.shared.state.lock().stalled);
    }
    drop(stuck);
    for job in queued {
        let _ = job.release.send(());
        job.answer.recv().unwrap();
    }
    assert!(!pool.shared.state.lock().stalled);
}

#[test]
fn the_keeper_is_not_woken_for_each_job() {
    let pool = IoPool::new(LONG);
    let one = |pool: &IoPool| {
        let job = submit_stuck(pool);
        job.release.send(()).unwrap();
        job.answer.recv().unwrap();
    };
    // For this one it watches until it is due.
    let first = submit_stuck(&pool);
    (0..100).for_each(|_| one(&pool));
    assert!(pool.shared.state.lock().keeper == Keeper::Watching);
    first.release.send(()).unwrap();
    first.answer.recv().unwrap();
}

#[test]
fn what_nobody_waits_for_takes_no_room_and_is_done_when_there_is_a_thread() {
    let pool = IoPool::new(LONG);
    let stuck = all_stuck(&pool);
    let (tell, told) = mpsc::channel();
    for number in 0..2 * REQUESTS_MAX {
        let tell = tell.clone();
        pool.tidy(move || tell.send(number).unwrap());
    }
    assert_eq!(pool.shared.state.lock().requests, THREADS_MAX);
    drop((stuck, tell));
    assert_eq!(told.iter().count(), 2 * REQUESTS_MAX);
}

//! Calls end exactly once, whatever the controller does.

use std::sync::{Arc, mpsc};

use super::*;
use crate::testing::FakeController;

fn calls(link: &Arc<Link>) -> (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>) {
    let receiving = Arc::clone(link);
    std::thread::spawn(move || receiving.receive(|_| {}, Vec::new));
    mpsc::channel()
}

fn getattr() -> Call {
    Call::Getattr { node: NodeId::ROOT }
}

fn open(limits: LinkLimits) -> (Arc<Link>, FrameSocket) {
    let (link, _, socket) = FakeController::greet(limits, FakeController::options());
    (Arc::new(link), socket)
}

fn request(socket: &FrameSocket) -> u64 {
    match socket.receive(&mut Vec::new()).unwrap().unwrap().0 {
        ToController::Request { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_come_in_any_order() {
    let (link, socket) = open(LinkLimits::default());
    let (done, ended) = calls(&link);
    for _ in 0..2 {
        let done = done.clone();
        link.call(getattr(), move |outcome| done.send(outcome).unwrap());
    }
    let (first, second) = (request(&socket), request(&socket));
    assert_ne!(first, second);
    socket.send(&ToVmds::Reply { id: second, result: Err(Refusal::NotFound) }, None).unwrap();
    assert_eq!(ended.recv().unwrap().unwrap_err(), Refusal::NotFound);
    socket.send(&ToVmds::Reply { id: first, result: Ok(Answer::Done) }, None).unwrap();
    assert_eq!(ended.recv().unwrap().unwrap().0, Answer::Done);
}

#[test]
fn an_overdue_call_fails_and_its_late_answer_is_ignored() {
    let short = Duration::from_millis(50);
    let (link, socket) = open(LinkLimits { deadline: short, tick: short / 5, ..LinkLimits::default() });
    let (done, ended) = calls(&link);
    let again = done.clone();
    link.call(getattr(), move |outcome| done.send(outcome).unwrap());
    let late = request(&socket);
    assert_eq!(ended.recv().unwrap().unwrap_err(), Refusal::Io);
    socket.send(&ToVmds::Reply { id: late, result: Ok(Answer::Done) }, None).unwrap();
    link.call(getattr(), move |outcome| again.send(outcome).unwrap());
    let id = request(&socket);
    socket.send(&ToVmds::Reply { id, result: Err(Refusal::NotFound) }, None).unwrap();
    assert_eq!(ended.recv().unwrap().unwrap_err(), Refusal::NotFound);
    assert!(ended.recv().is_err(), "no more than one end per call");
}

#[test]
fn no_more_calls_are_in_flight_than_allowed() {
    let (link, socket) = open(LinkLimits { inflight: 2, ..LinkLimits::default() });
    let (done, ended) = calls(&link);
    let caller = {
        let link = Arc::clone(&link);
        std::thread::spawn(move || {
            for _ in 0..20 {
                let done = done.clone();
                link.call(getattr(), move |outcome| done.send(outcome).unwrap());
                assert!(link.calls.lock().waiting.len() <= 2);
            }
        })
    };
    for _ in 0..20 {
        let id = request(&socket);
        socket.send(&ToVmds::Reply { id, result: Ok(Answer::Done) }, None).unwrap();
    }
    caller.join().unwrap();
    assert_eq!(ended.iter().take(20).filter(Result::is_ok).count(), 20);
}

#[test]
fn a_full_table_makes_a_caller_wait_only_so_long() {
    let short = Duration::from_millis(50);
    let (link, _socket) = open(LinkLimits { inflight: 1, deadline: short, ..LinkLimits::default() });
    link.call(getattr(), |_| {});
    // Nobody receives, so nothing makes room.
    let (done, ended) = mpsc::channel();
    link.call(getattr(), move |outcome| done.send(outcome).unwrap());
    assert_eq!(ended.try_recv().unwrap().unwrap_err(), Refusal::Io);
}

#[test]
fn a_continuation_may_call_although_the_table_is_full() {
    let (link, socket) = open(LinkLimits { inflight: 1, ..LinkLimits::default() });
    let (done, ended) = calls(&link);
    let chained = Arc::clone(&link);
    link.call(getattr(), move |_| chained.call(getattr(), move |outcome| done.send(outcome).unwrap()));
    for _ in 0..2 {
        let id = request(&socket);
        socket.send(&ToVmds::Reply { id, result: Ok(Answer::Done) }, None).unwrap();
    }
    assert!(ended.recv().unwrap().is_ok());
}

#[test]
fn when_the_controller_goes_all_calls_fail() {
    let (link, socket) = open(LinkLimits::default());
    let (done, ended) = calls(&link);
    let later = done.clone();
    link.call(getattr(), move |outcome| done.send(outcome).unwrap());
    drop(socket);
    assert_eq!(ended.recv().unwrap().unwrap_err(), Refusal::Io);
    link.call(getattr(), move |outcome| later.send(outcome).unwrap());
    assert_eq!(ended.recv().unwrap().unwrap_err(), Refusal::Io);
}

#[test]
fn a_refused_session_says_why() {
    let (near, far) = FrameSocket::pair().unwrap();
    far.send(&ToVmds::Refused { reason: "too old".into() }, None).unwrap();
    let error = Link::open(near, None, LinkLimits::default()).err().unwrap();
    assert!(matches!(&error, LinkError::Refused(reason) if reason == "too old"), "{error:?}");
    let (near, _far) = FrameSocket::pair().unwrap();
    let limits = LinkLimits { opening: Duration::from_millis(20), ..LinkLimits::default() };
    assert!(matches!(Link::open(near, None, limits).err().unwrap(), LinkError::Socket(SocketError::Io(_))));
}

#[test]
fn what_a_controller_did_not_answer_is_asked_of_the_next_one() {
    let (near, first) = FrameSocket::pair().unwrap();
    let (outside, door) = FrameSocket::pair().unwrap();
    let welcome = |socket: &FrameSocket| {
        let welcome = Welcome {
            protocol: PROTOCOL_MAX,
            tenant: "t".into(),
            generation: 1,
            options: FakeController::options(),
        };
        assert!(matches!(socket.receive(&mut Vec::new()).unwrap().unwrap().0, ToController::Hello(_)));
        socket.send(&ToVmds::Welcome(welcome), None).unwrap();
    };
    let link = std::thread::scope(|scope| {
        scope.spawn(|| welcome(&first));
        Arc::new(Link::open(near, Some(door), LinkLimits::default()).unwrap().0)
    });
    let receiving = Arc::clone(&link);
    let holding = Holding { node: NodeId(5), write: true, backing: Some(7) };
    std::thread::spawn(move || receiving.receive(|_| {}, || vec![holding]));
    let (done, ended) = mpsc::channel();
    let mkdir =
        |name: &[u8]| Call::Rmdir { parent: NodeId::ROOT, name: address_map::name::Name::new(name).unwrap() };
    let sent = done.clone();
    link.change(KernelRequest(8), mkdir(b"sent"), move |outcome| sent.send(outcome).unwrap());
    let next = |socket: &FrameSocket| socket.receive::<ToController>(&mut Vec::new()).unwrap().unwrap().0;
    let ToController::Change { origin, .. } = next(&first) else { panic!("a change") };
    assert_eq!((origin.unique, origin.repeated), (8, false));
    first.shutdown();
    while link.calls.lock().socket.is_some() {
        std::thread::yield_now();
    }
    link.change(KernelRequest(1 << 63 | 9), mkdir(b"unsent"), move |outcome| done.send(outcome).unwrap());

    let (second, theirs) = FrameSocket::pair().unwrap();
    outside.send(&AtDoor::Controller, Some(std::os::fd::AsFd::as_fd(&theirs))).unwrap();
    welcome(&second);
    assert_eq!(next(&second), ToController::Held { node: NodeId(5), write: true, backing: Some(7) });
    assert_eq!(next(&second), ToController::Resumed);
    let mut places = Vec::new();
    for unique in [8, 9] {
        let ToController::Change { id, origin, .. } = next(&second) else { panic!("a change") };
        assert_eq!((origin.unique, origin.repeated), (unique, true));
        places.push(origin.place);
        second.send(&ToVmds::Reply { id, result: Ok(Answer::Done) }, None).unwrap();
        assert!(ended.recv().unwrap().is_ok());
    }
    assert_ne!(places[0], places[1]);
}

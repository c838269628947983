//! Promise: whatever a VMDS in the wrong hands says to the controller gives it nothing, and the operator is told whose it
//! is. `docs/ATTACKS.md` lists what is tried.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use address_map::attr::{Caller, NewMode};
use address_map::error::Refusal;
use address_map::ids::{Ino, NodeId, Slot};
use address_map::limits::FRAME_MAX;
use address_map::name::Name;
use address_map::wire::{
    Answer, Call, Hello, Make, PROTOCOL_MAX, PROTOCOL_MIN, RequestOrigin, ToController, encode,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Captured, World, wait_until};

use crate::help::{SOON, binaries, world};

/// A number that no inode of these small trees has.
const NEVER_MADE: Ino = Ino(12_345);
/// It is told of a flood when its next line is, some seconds later.
const UNTOLD_AT_MOST: Duration = Duration::from_secs(30);

/// What an attacker knows beside what it was told: everything.
struct Known {
    /// The root of what is shared with it.
    root: NodeId,
    /// A file of the owner that is not.
    private: NodeId,
}

/// What becomes of an attack.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Granted,
    Refused(Refusal),
    Ended,
}

impl From<Result<Answer, Refusal>> for Outcome {
    fn from(answer: Result<Answer, Refusal>) -> Self {
        answer.map_or_else(Self::Refused, |_| Self::Granted)
    }
}

/// Says one thing that no honest VMDS says.
type Attack = fn(&mut Captured, &Known) -> Outcome;

fn ask(vmds: &mut Captured, call: Call) -> Outcome {
    vmds.ask(call).into()
}

fn change(vmds: &mut Captured, place: u16, call: Call) -> Outcome {
    let (id, origin) = (vmds.next_id(), RequestOrigin { unique: 4, place, repeated: false });
    vmds.say(&ToController::Change { id, origin, call });
    vmds.answer_to(id).into()
}

/// Sends bytes and waits for the end of the link.
fn send(vmds: &Captured, bytes: &[u8]) -> Outcome {
    vmds.send(bytes, &[]).unwrap();
    await_end(vmds)
}

fn await_end(vmds: &Captured) -> Outcome {
    while vmds.hear().is_some() {}
    Outcome::Ended
}

fn frame(message: &ToController) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).unwrap();
    bytes
}

fn name() -> Name {
    Name::new(b"name").unwrap()
}

fn make(parent: NodeId) -> Call {
    let caller = Caller { uid: 0, gid: 0 };
    Call::Make { parent, name: name(), caller, mode: NewMode::exactly(0o644), what: Make::File }
}

const UNKNOWN: Outcome = Outcome::Refused(Refusal::NotFound);
const INVALID: Outcome = Outcome::Refused(Refusal::Invalid);

/// Each is told as the kind that is named with it, and comes to the end that is named with it.
const ATTACKS: [(&str, Outcome, Attack); 14] = [
    ("node", UNKNOWN, |vmds, known| ask(vmds, Call::Getattr { node: known.private })),
    ("node", UNKNOWN, |vmds, known| ask(vmds, Call::List { node: known.private, after: 0 })),
    ("node", UNKNOWN, |vmds, known| ask(vmds, Call::Lease { node: known.private, write: true, fill: true })),
    ("node", UNKNOWN, |vmds, known| change(vmds, 0, make(NodeId::new(known.root.slot(), Ino::ROOT)))),
    ("node", UNKNOWN, |vmds, known| {
        change(vmds, 0, Call::Link { node: known.private, parent: NodeId::ROOT, name: name() })
    }),
    ("node", UNKNOWN, |vmds, known| {
        ask(vmds, Call::Sync { node: NodeId::new(known.root.slot(), NEVER_MADE), data_only: false })
    }),
    ("node", UNKNOWN, |vmds, _| ask(vmds, Call::Getattr { node: NodeId::new(Slot::OWN, NEVER_MADE) })),
    ("slot", UNKNOWN, |vmds, known| {
        ask(vmds, Call::Getattr { node: NodeId::new(Slot(u16::MAX), known.root.ino()) })
    }),
    ("request", INVALID, |vmds, _| change(vmds, 0, Call::Getattr { node: NodeId::ROOT })),
    ("request", INVALID, |vmds, _| change(vmds, u16::MAX, make(NodeId::ROOT))),
    ("frame", Outcome::Ended, |vmds, _| send(vmds, &[0xff; 40])),
    ("frame", Outcome::Ended, |vmds, _| send(vmds, &vec![0; FRAME_MAX + 1])),
    ("frame", Outcome::Ended, |vmds, _| {
        let hello = Hello { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, software: "x".into() };
        send(vmds, &frame(&ToController::Hello(hello)))
    }),
    ("frame", Outcome::Ended, |vmds, _| {
        let zero = fs::File::open("/dev/zero").unwrap();
        vmds.send(&frame(&ToController::Resumed), &[zero.as_fd(), zero.as_fd()]).unwrap();
        await_end(vmds)
    }),
];

/// A frame whose last field claims to be as long as a number can say.
fn endless() -> Vec<u8> {
    let mut bytes = frame(&ToController::Request {
        id: 1,
        call: Call::Getxattr { node: NodeId::ROOT, name: Vec::new() },
    });
    assert_eq!(bytes.pop(), Some(0), "a frame ends with the length of its last field");
    bytes.push(253);
    bytes.extend([0xff; 8]);
    bytes
}

/// The tenants and kinds that the operator was told of, in this order.
fn told(world: &World) -> Vec<(String, String)> {
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let accusations = world.accusations();
    assert!(accusations.iter().all(|event| event["level"] == "WARN"), "{accusations:#?}");
    accusations.iter().map(|event| (text(event, "tenant"), text(event, "forgery"))).collect()
}

#[test]
fn what_no_honest_vmds_says_gives_nothing_and_is_logged_with_its_tenant() {
    let world = world();
    let victim = world.mounted("victim");
    fs::create_dir(victim.join("set")).unwrap();
    fs::write(victim.join("private"), "secret").unwrap();
    let private = fs::metadata(victim.join("private")).unwrap().ino();
    let attacks =
        ATTACKS.into_iter().chain([("frame", Outcome::Ended, (|vmds, _| send(vmds, &endless())) as Attack)]);
    let mut expected = Vec::new();
    for (number, (kind, end, attack)) in attacks.enumerate() {
        // Each by a tenant of its own: so the log is seen to name the one who did it.
        let tenant = format!("attacker-{number}");
        let others = world.vmdses();
        let dir = world.mounted(&tenant);
        world.ctl(&["share", "grant", "victim:/set", &format!("{tenant}:/in"), "--rw"]);
        let root = NodeId(fs::metadata(dir.join("in")).unwrap().ino());
        let known = Known { root, private: NodeId::new(root.slot(), NodeId(private).ino()) };
        let vmds = world.vmdses().into_iter().find(|vmds| !others.contains(vmds)).unwrap();
        let outcome = attack(&mut world.capture(vmds), &known);
        assert_eq!(outcome, end, "attack {number}");
        expected.push((tenant, kind.to_owned()));
        wait_until("the operator is told", SOON, || told(&world).len() >= expected.len());
        assert_eq!(told(&world), expected);
        world.ctl(&["umount", dir.to_str().unwrap()]);
    }
    assert_eq!(fs::read_to_string(victim.join("private")).unwrap(), "secret");
    assert!(fs::read_dir(victim.join("set")).unwrap().next().is_none());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 2);
    let tried: BTreeSet<String> = expected.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(tried, written_down(), "kinds of forgeries in docs/ATTACKS.md");
    world.ctl(&["check"]);
}

/// The kinds of forgeries that the table in `docs/ATTACKS.md` has.
fn written_down() -> BTreeSet<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ATTACKS.md")).unwrap();
    let (_, table) = text.split_once("| attack | answer | told as |").unwrap();
    let cells = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let told_as = cells.filter_map(|line| line.trim_end_matches('|').rsplit('|').next());
    told_as.filter_map(|cell| cell.trim().strip_prefix('`')?.strip_suffix('`').map(str::to_owned)).collect()
}

/// What each VMDS of `world` is from its next start on: a program that says `first`, and no hello.
fn use_rude_vmds(world: &mut World, first: &ToController) {
    let (program, words) = (world.dir().join("rude"), world.dir().join("words"));
    fs::write(&words, frame(first)).unwrap();
    // One write is one frame; then it waits for the end of the link.
    let script = format!("#!/bin/sh\ncat '{}' >&5\ncat <&5 >/dev/null\n", words.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    world.use_vmds(&program);
}

#[test]
fn a_vmds_that_does_not_say_hello_is_logged_with_its_tenant() {
    let mut world = World::start(binaries());
    let dir = world.mounted("rude");
    fs::write(dir.join("file"), "text").unwrap();
    world.expect_accusations();
    use_rude_vmds(&mut world, &ToController::Resumed);
    world.stop_controller();
    world.start_controller();
    wait_until("the operator is told", SOON, || !told(&world).is_empty());
    assert!(told(&world).iter().all(|told| *told == ("rude".to_owned(), "frame".to_owned())));
    let said = world.accusations()[0]["what"].clone();
    assert!(said.as_str().unwrap().contains("did not say hello first"), "{said}");
}

/// Whether the controller has logged an event with these words about this tenant, and with these alone.
fn is_logged(world: &World, tenant: &str, words: &str) -> bool {
    let events = world.logged().into_iter();
    let mut about = events.filter(|event| {
        let text = |field: &str| event[field].as_str().is_some_and(|text| text.contains(words));
        event["level"] == "WARN" && (text("message") || text("reason"))
    });
    let first = about.next();
    assert!(about.all(|event| event["tenant"] == tenant), "{words}: another tenant is named");
    first.is_some_and(|event| event["tenant"] == tenant)
}

#[test]
fn a_vmds_that_does_not_forget_is_ended_and_logged_with_its_tenant() {
    let world = world();
    let owner = world.mounted("owner");
    fs::create_dir(owner.join("set")).unwrap();
    let before = world.vmds();
    let grantee = world.mounted("grantee");
    world.ctl(&["share", "grant", "owner:/set", "grantee:/in", "--ro"]);
    let silent = world.vmdses().into_iter().find(|vmds| *vmds != before).unwrap();
    // It has looked, and so must forget that there was nothing.
    assert!(fs::symlink_metadata(grantee.join("in/later")).is_err());
    silent.signal(Signal::STOP);
    fs::write(owner.join("set/later"), "text").unwrap();
    wait_until("the operator is told", SOON, || {
        is_logged(&world, "grantee", "does not answer invalidations")
    });
    assert_eq!(fs::read_to_string(grantee.join("in/later")).unwrap(), "text");
    assert!(!silent.is_alive() && before.is_alive());
}

#[test]
fn a_vmds_that_takes_no_answers_is_ended_and_logged_with_its_tenant() {
    let world = world();
    let deaf = world.mounted("deaf");
    let vmds = world.vmds();
    let other = world.mounted("other");
    let value = vec![b'x'; 60_000];
    rustix::fs::setxattr(&deaf, "user.large", &value, rustix::fs::XattrFlags::empty()).unwrap();
    let root = NodeId(fs::metadata(&deaf).unwrap().ino());
    let mut captured = world.capture(vmds);
    for _ in 0..200 {
        let id = captured.next_id();
        let call = Call::Getxattr { node: root, name: b"user.large".to_vec() };
        // It is cut off in the middle of this.
        if captured.send(&frame(&ToController::Request { id, call }), &[]).is_err() {
            break;
        }
    }
    wait_until("the operator is told", SOON, || is_logged(&world, "deaf", "a reply was not taken"));
    drop(captured);
    wait_until("it has ended", SOON, || !vmds.is_alive());
    fs::write(other.join("file"), "text").unwrap();
    fs::write(deaf.join("file"), "text").unwrap();
}

#[test]
fn a_vmds_that_leaves_its_sandbox_is_ended_and_logged_with_its_tenant() {
    let world = world();
    let dir = world.mounted("curious");
    let vmds = world.vmds();
    world.mounted("other");
    // What the filter does to who makes a call that is answered with the end.
    vmds.signal(Signal::SYS);
    wait_until("the operator is told", SOON, || is_logged(&world, "curious", "SIGSYS"));
    fs::write(dir.join("file"), "text").unwrap();
}

#[test]
fn what_a_vmds_logs_is_bounded_and_cannot_pass_for_another_tenants() {
    let world = world();
    world.mounted("loud");
    let vmds = world.vmds();
    world.mounted("quiet");
    let captured = world.capture(vmds);
    let forged =
        json!({"level": "WARN", "tenant": "quiet", "message": "refused what no honest VMDS asks for"});
    captured.log(&format!("\n{forged}\n\u{1b}[2J\u{1b}[31mquiet\r{forged}\n")).unwrap();
    captured.log(&"flood\n".repeat(1_000)).unwrap();
    wait_until("the operator is told", UNTOLD_AT_MOST, || {
        captured.log("more\n").unwrap();
        is_logged(&world, "loud", "the VMDS logs too much")
    });
    assert_eq!(world.accusations(), [json!(null); 0]);
    let log = world.log();
    assert!(!log.contains('\u{1b}') && !log.contains('\r'), "control characters reach the operator");
    let events = world.logged();
    let said =
        |event: &&Value| event["message"].as_str().is_some_and(|said| said.contains("refused what no"));
    let tenants: Vec<&Value> = events.iter().filter(said).map(|event| &event["tenant"]).collect();
    assert!(tenants.len() == 2 && tenants.iter().all(|tenant| *tenant == "loud"), "{tenants:?}");
    let floods = events.iter().filter(|event| event["message"] == "flood").count();
    assert!((1..1_000).contains(&floods), "{floods} lines");
}

//! The border, tried from the wire: what a VMDS that belongs to its tenant, or to an attacker, gets to see.

mod filling;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_map::attr::{AttrChange, Caller, NewMode};
use address_map::clock::SystemClock;
use address_map::engine::{Committer, MemoryEngine};
use address_map::error::Refusal;
use address_map::ids::{Ino, MountEpoch, NodeId, PoolId, ShardId, ShareId, Slot, TenantId};
use address_map::map::AddressMap;
use address_map::name::{LogicalPath, Name};
use address_map::record::{Quota, Rights};
use address_map::shard::Shard;
use address_map::wire::{
    Answer, Call, FrameSocket, Hello, Make, NodeAttr, PROTOCOL_MAX, PROTOCOL_MIN, RenameMode, RequestOrigin,
    SessionOptions, Stale, ToController, ToVmds,
};

use super::inflight::{InFlight, UNANSWERED_MAX};
use super::serve::Asked;
use super::{DataPlane, MountControl, Replaced, Session};
use crate::audit::Audit;
use crate::map_service::PlaneServices;
use crate::metrics::Forgery;
use crate::pool::Pools;
use crate::resource::{PoolSpec, PosixSpec};
use crate::services::{GrantOrder, GrantOutcome, MapService, PoolService, RevokeOrder, TenantSetup};

const ALICE: TenantId = TenantId(1);
const BOB: TenantId = TenantId(2);
const CALLER: Caller = Caller { uid: 1000, gid: 1000 };

struct NoControl;

impl MountControl for NoControl {
    fn register(&self, _: BorrowedFd<'_>) -> Option<u32> {
        None
    }
    fn unregister(&self, _: u32) {}
    fn replace_vmds(&self) {}
    fn replace_vmds_and_wait(&self) -> Replaced {
        Replaced::Done
    }
}

struct World {
    plane: Arc<DataPlane>,
    services: PlaneServices,
    _pool: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let shards = vec![Arc::new(Shard::new(ShardId(0), engine.clone(), 1000))];
        let map = AddressMap::new(shards, Arc::new(SystemClock));
        let plane = DataPlane::start(map, Pools::default(), Committer::new(engine), Audit::none());
        let plane = plane.unwrap();
        let pool = tempfile::tempdir().unwrap();
        let services = PlaneServices::new(plane.clone(), pool.path().join("staging"));
        let spec = PoolSpec::Posix(PosixSpec { path: pool.path().to_owned(), host: None });
        services.ensure_pool(PoolId(1), "default", &spec).unwrap();
        for (id, name) in [(ALICE, "alice"), (BOB, "bob")] {
            let setup = TenantSetup {
                id,
                name: name.to_owned(),
                shard: ShardId(0),
                pool: PoolId(1),
                quota: Quota::default(),
                root_uid: 1000,
                root_mode: 0o755,
            };
            services.ensure_tenant(&setup).unwrap();
        }
        Self { plane, services, _pool: pool }
    }

    fn connect(&self, tenant: TenantId) -> Vmds {
        let options = SessionOptions {
            ttl_ms: 1000,
            cache_entries: 10,
            buffer_bytes: 1 << 24,
            leases_max: 10,
            metered: false,
            pool_timeout_ms: 1000,
        };
        let session = self
            .plane
            .begin_session(tenant, "somebody", options, MountEpoch(u64::from(tenant.0)), Arc::new(NoControl))
            .unwrap();
        let (ours, theirs) = FrameSocket::pair().unwrap();
        let (plane, serving) = (self.plane.clone(), session.clone());
        std::thread::spawn(move || plane.serve(&serving, ours, 1, || true));
        let hello = Hello { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, software: "test".into() };
        theirs.send(&ToController::Hello(hello), None).unwrap();
        let vmds = Vmds { socket: theirs, session, plane: self.plane.clone() };
        assert!(matches!(vmds.receive(), ToVmds::Welcome(_)));
        vmds
    }

    fn grant(&self, id: u64, path: &str, target: &str, rights: Rights) {
        let order = GrantOrder {
            id: ShareId(id),
            owner: ALICE,
            path: LogicalPath::parse(path.as_bytes()).unwrap(),
            grantee: BOB,
            target: LogicalPath::parse(target.as_bytes()).unwrap(),
            rights,
            expires: None,
            leases: None,
        };
        assert!(matches!(self.services.grant(&order).unwrap(), GrantOutcome::Granted(_)));
    }
}

/// A VMDS by hand. It forgets whatever it is told to, at once.
struct Vmds {
    socket: FrameSocket,
    session: Arc<Session>,
    plane: Arc<DataPlane>,
}

impl Vmds {
    fn receive(&self) -> ToVmds {
        self.socket.receive(&mut Vec::new()).unwrap().expect("the controller is there").0
    }

    fn call(&self, call: Call) -> Result<Answer, Refusal> {
        self.socket.send(&ToController::Request { id: 1, call }, None).unwrap();
        loop {
            match self.receive() {
                ToVmds::Reply { id: 1, result } => return result,
                ToVmds::Stale { fence, .. } => {
                    self.socket.send(&ToController::Forgotten { fence }, None).unwrap()
                }
                _ => {}
            }
        }
    }

    fn lookup(&self, parent: NodeId, name: &str) -> Result<NodeAttr, Refusal> {
        match self.call(Call::Lookup { parent, name: Name::new(name.as_bytes()).unwrap() })? {
            Answer::Found(found) => Ok(found),
            other => panic!("{other:?}"),
        }
    }

    fn make(&self, parent: NodeId, name: &str, what: Make) -> Result<NodeId, Refusal> {
        let name = Name::new(name.as_bytes()).unwrap();
        match self.call(Call::Make { parent, name, caller: CALLER, mode: NewMode::exactly(0o755), what })? {
            Answer::Made { target, .. } => Ok(target.node),
            other => panic!("{other:?}"),
        }
    }

    fn names(&self, node: NodeId) -> Result<Vec<String>, Refusal> {
        match self.call(Call::List { node, after: 0 })? {
            Answer::Page { entries, end: true } => Ok(entries.iter().map(|e| e.name.to_string()).collect()),
            other => panic!("{other:?}"),
        }
    }

    fn rename(&self, from: (NodeId, &str), to: (NodeId, &str)) -> Result<Answer, Refusal> {
        let name = |name: &str| Name::new(name.as_bytes()).unwrap();
        self.call(Call::Rename {
            parent: from.0,
            name: name(from.1),
            new_parent: to.0,
            new_name: name(to.1),
            mode: RenameMode::Replace,
        })
    }
}

impl Drop for Vmds {
    fn drop(&mut self) {
        self.socket.shutdown();
        self.plane.end_session(&self.session);
    }
}

/// Alice has `/data/set/file` and `/private`; `/data/set` is bob's `/in/set`.
fn shared(rights: Rights) -> (World, Vmds, Vmds, NodeId) {
    let world = World::new();
    let alice = world.connect(ALICE);
    let data = alice.make(NodeId::ROOT, "data", Make::Directory).unwrap();
    let set = alice.make(data, "set", Make::Directory).unwrap();
    alice.make(set, "file", Make::File).unwrap();
    alice.make(NodeId::ROOT, "private", Make::File).unwrap();
    world.grant(9, "/data/set", "/in/set", rights);
    let bob = world.connect(BOB);
    let inside = bob.lookup(NodeId::ROOT, "in").unwrap().node;
    let root = bob.lookup(inside, "set").unwrap().node;
    (world, alice, bob, root)
}

#[test]
fn two_tenants_have_the_same_names_and_nothing_in_common() {
    let world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    alice.make(NodeId::ROOT, "same", Make::Directory).unwrap();
    alice.make(NodeId::ROOT, "only-alice", Make::File).unwrap();
    let theirs = bob.make(NodeId::ROOT, "same", Make::File).unwrap();
    assert_eq!(bob.names(NodeId::ROOT).unwrap(), ["same"]);
    assert_eq!(bob.lookup(NodeId::ROOT, "only-alice"), Err(Refusal::NotFound));
    assert!(theirs.is_own());
}

#[test]
fn a_guessed_node_outside_of_the_share_does_not_exist() {
    let (_world, alice, bob, root) = shared(Rights::ReadWrite);
    let slot = root.slot();
    let private = alice.lookup(NodeId::ROOT, "private").unwrap().node.ino();
    let data = alice.lookup(NodeId::ROOT, "data").unwrap().node.ino();
    assert_eq!(forgeries(&bob), [0; 4]);
    for outside in [private, data, Ino::ROOT, Ino(12345)] {
        let node = NodeId::new(slot, outside);
        assert_eq!(bob.call(Call::Getattr { node }), Err(Refusal::NotFound), "{node}");
        assert_eq!(
            bob.call(Call::Lease { node, write: false, fill: false }),
            Err(Refusal::NotFound),
            "{node}"
        );
        assert_eq!(bob.names(node), Err(Refusal::NotFound), "{node}");
        assert_eq!(bob.make(node, "planted", Make::File), Err(Refusal::NotFound), "{node}");
        let change = AttrChange { mode: Some(0o777), ..AttrChange::default() };
        let call = Call::Setattr { node, caller: CALLER, change };
        assert_eq!(bob.call(call), Err(Refusal::NotFound), "{node}");
    }
    assert_eq!(forgeries(&bob), [0, 0, 4 * 5, 0]);
    for other_slot in [slot.0 + 1, u16::MAX] {
        let node = NodeId::new(Slot(other_slot), root.ino());
        assert_eq!(bob.call(Call::Getattr { node }), Err(Refusal::NotFound), "{node}");
    }
    assert_eq!(forgeries(&bob), [0, 0, 4 * 5, 2]);
    let unmade = NodeId::new(Slot::OWN, Ino(12345));
    assert_eq!(bob.call(Call::Sync { node: unmade, data_only: false }), Err(Refusal::NotFound));
    assert_eq!(forgeries(&bob), [0, 0, 4 * 5 + 1, 2]);
}

/// What was counted of frames, requests, nodes and slots.
fn forgeries(vmds: &Vmds) -> [u64; 4] {
    [Forgery::Frame, Forgery::Request, Forgery::Node, Forgery::Slot]
        .map(|kind| vmds.plane.forgeries.counted(kind))
}

#[test]
fn a_vmds_that_outlived_its_controller_is_accused_only_of_what_never_was() {
    let (_world, alice, bob, root) = shared(Rights::ReadWrite);
    bob.session.outlived_its_controller();
    let private = alice.lookup(NodeId::ROOT, "private").unwrap().node.ino();
    // The controller before may have told of it, while it lay in the share.
    let node = NodeId::new(root.slot(), private);
    assert_eq!(bob.call(Call::Getattr { node }), Err(Refusal::NotFound));
    assert_eq!(forgeries(&bob), [0; 4]);
    for node in [NodeId::new(root.slot(), Ino(12345)), NodeId::new(Slot(root.slot().0 + 1), private)] {
        assert_eq!(bob.call(Call::Getattr { node }), Err(Refusal::NotFound));
    }
    assert_eq!(forgeries(&bob), [0, 0, 1, 1]);
}

#[test]
fn a_change_that_is_none_of_the_protocols_is_refused_and_reported() {
    let world = World::new();
    let bob = world.connect(BOB);
    let origin = |place| RequestOrigin { unique: 4, place, repeated: false };
    let changes = [
        (origin(u16::MAX), Call::Rmdir { parent: NodeId::ROOT, name: Name::new(b"any").unwrap() }),
        (origin(0), Call::Getattr { node: NodeId::ROOT }),
    ];
    for (origin, call) in changes {
        bob.socket.send(&ToController::Change { id: 1, origin, call }, None).unwrap();
        let ToVmds::Reply { id: 1, result } = bob.receive() else { panic!("there is a reply") };
        assert_eq!(result, Err(Refusal::Invalid));
    }
    assert_eq!(forgeries(&bob), [0, 2, 0, 0]);
}

#[test]
fn a_share_is_live_in_both_directions() {
    let (_world, alice, bob, root) = shared(Rights::ReadWrite);
    let own_root = NodeId::new(Slot::OWN, root.ino());
    assert_eq!(bob.lookup(root, "later"), Err(Refusal::NotFound));
    // Alice's change is acknowledged only when bob has forgotten that the name did not exist.
    let forgetting = std::thread::spawn(move || {
        let ToVmds::Stale { fence, items } = bob.receive() else { panic!("bob hears of the change") };
        assert_eq!(items, [Stale::Inode { node: root, data: true }]);
        bob.socket.send(&ToController::Forgotten { fence }, None).unwrap();
        bob
    });
    alice.make(own_root, "later", Make::File).unwrap();
    let bob = forgetting.join().unwrap();
    bob.lookup(root, "later").unwrap();
    let telling = std::thread::spawn(move || {
        bob.make(root, "from-bob", Make::File).unwrap();
        bob
    });
    let ToVmds::Stale { fence, items } = alice.receive() else { panic!("alice hears of the change") };
    assert!(matches!(&items[..], [Stale::Entry { parent, .. }] if *parent == own_root), "{items:?}");
    alice.socket.send(&ToController::Forgotten { fence }, None).unwrap();
    drop(telling.join().unwrap());
    alice.lookup(own_root, "from-bob").unwrap();
}

#[test]
fn a_read_only_share_can_be_looked_at_and_not_changed() {
    let (_world, _alice, bob, root) = shared(Rights::ReadOnly);
    let file = bob.lookup(root, "file").unwrap().node;
    assert!(matches!(
        bob.call(Call::Lease { node: file, write: false, fill: false }),
        Ok(Answer::Leased { .. })
    ));
    assert_eq!(bob.call(Call::Lease { node: file, write: true, fill: false }), Err(Refusal::ReadOnly));
    assert_eq!(bob.make(root, "new", Make::File), Err(Refusal::ReadOnly));
    assert_eq!(
        bob.call(Call::Unlink { parent: root, name: Name::new(b"file").unwrap() }),
        Err(Refusal::ReadOnly)
    );
    let change = AttrChange { size: Some(0), ..AttrChange::default() };
    assert_eq!(bob.call(Call::Setattr { node: file, caller: CALLER, change }), Err(Refusal::ReadOnly));
    assert_eq!(bob.call(Call::Grow { node: file, size: 10 }), Err(Refusal::ReadOnly));
}

#[test]
fn nothing_is_moved_or_linked_across_the_border() {
    let (_world, _alice, bob, root) = shared(Rights::ReadWrite);
    let file = bob.lookup(root, "file").unwrap().node;
    assert_eq!(bob.rename((root, "file"), (NodeId::ROOT, "stolen")), Err(Refusal::CrossesShare));
    let name = Name::new(b"stolen").unwrap();
    assert_eq!(bob.call(Call::Link { node: file, parent: NodeId::ROOT, name }), Err(Refusal::CrossesShare));
    let inside = bob.lookup(NodeId::ROOT, "in").unwrap().node;
    let rmdir = Call::Rmdir { parent: inside, name: Name::new(b"set").unwrap() };
    assert_eq!(bob.call(rmdir), Err(Refusal::ShareRoot));
    bob.rename((inside, "set"), (NodeId::ROOT, "moved")).unwrap();
    assert_eq!(bob.lookup(NodeId::ROOT, "moved").unwrap().node, root);
}

#[test]
fn what_the_owner_moves_out_of_the_share_is_gone() {
    let (_world, alice, bob, root) = shared(Rights::ReadWrite);
    let file = bob.lookup(root, "file").unwrap().node;
    let own_root = NodeId::new(Slot::OWN, root.ino());
    std::thread::scope(|scope| {
        scope.spawn(|| alice.rename((own_root, "file"), (NodeId::ROOT, "file")).unwrap());
        let ToVmds::Stale { fence, .. } = bob.receive() else { panic!("bob hears of the change") };
        bob.socket.send(&ToController::Forgotten { fence }, None).unwrap();
    });
    assert_eq!(bob.call(Call::Getattr { node: file }), Err(Refusal::NotFound));
    assert_eq!(forgeries(&bob), [0; 4], "it was told of the file");
}

#[test]
fn a_revoked_share_is_refused_at_once_and_its_slot_leads_nowhere() {
    let (world, _alice, bob, root) = shared(Rights::ReadOnly);
    let order = RevokeOrder { id: ShareId(9), owner: ALICE, grantee: BOB, hard: false };
    let receipt = std::thread::scope(|scope| {
        let revoking = scope.spawn(|| world.services.revoke(&order).unwrap());
        let ToVmds::Stale { fence, items } = bob.receive() else { panic!("bob hears of it") };
        assert!(items.contains(&Stale::Slot(root.slot())), "{items:?}");
        bob.socket.send(&ToController::Forgotten { fence }, None).unwrap();
        revoking.join().unwrap()
    });
    assert_eq!((receipt.mounts_dropped, receipt.mounts_unreached.len()), (1, 0));
    assert_eq!(bob.call(Call::Getattr { node: root }), Err(Refusal::NotFound));
    assert_eq!(bob.names(root), Err(Refusal::NotFound));
    let inside = bob.lookup(NodeId::ROOT, "in").unwrap().node;
    assert_eq!(bob.lookup(inside, "set"), Err(Refusal::NotFound));
    assert!(bob.names(inside).unwrap().is_empty());
    assert_eq!(forgeries(&bob), [0; 4], "it was told of the share");
    std::thread::scope(|scope| {
        scope.spawn(|| world.grant(10, "/data", "/in/again", Rights::ReadOnly));
        let ToVmds::Stale { fence, .. } = bob.receive() else { panic!("bob hears of the new share") };
        bob.socket.send(&ToController::Forgotten { fence }, None).unwrap();
    });
    assert_eq!(bob.call(Call::Getattr { node: root }), Err(Refusal::NotFound));
}

#[test]
fn a_silent_vmds_delays_others_no_longer_than_the_deadline_and_is_cut_off() {
    let (_world, alice, bob, root) = shared(Rights::ReadWrite);
    assert_eq!(bob.lookup(root, "later"), Err(Refusal::NotFound));
    let began = std::time::Instant::now();
    alice.make(NodeId::new(Slot::OWN, root.ino()), "later", Make::File).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(matches!(bob.receive(), ToVmds::Stale { .. }));
    assert!(bob.socket.receive::<ToVmds>(&mut Vec::new()).unwrap().is_none());
}

#[test]
fn only_so_many_requests_of_one_vmds_are_without_a_reply() {
    let world = World::new();
    // The second mount hears of every change of the first, and answers nothing.
    let (hostile, accomplice) = (world.connect(ALICE), world.connect(ALICE));
    let change = AttrChange { mode: Some(0o700), ..AttrChange::default() };
    let call = Call::Setattr { node: NodeId::ROOT, caller: CALLER, change };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 0..4 * UNANSWERED_MAX as u64 {
                let asked = hostile.socket.send(&ToController::Request { id, call: call.clone() }, None);
                if asked.is_err() {
                    break;
                }
            }
        });
        scope.spawn(|| {
            for _ in 0..4 * UNANSWERED_MAX {
                assert!(matches!(hostile.receive(), ToVmds::Reply { .. }));
            }
        });
        // Until it is cut off for its silence: then the first changes are answered, and not before.
        let mut heard = 0;
        while accomplice.socket.receive::<ToVmds>(&mut Vec::new()).unwrap().is_some() {
            heard += 1;
        }
        assert!((1..=UNANSWERED_MAX).contains(&heard), "{heard} changes were under way");
    });
}

#[test]
fn what_is_no_frame_ends_the_conversation_and_nothing_else() {
    let world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    rustix::net::send(&bob.socket, b"\xff\xff\xff\xff", rustix::net::SendFlags::empty()).unwrap();
    assert!(bob.socket.receive::<ToVmds>(&mut Vec::new()).unwrap().is_none());
    alice.make(NodeId::ROOT, "fine", Make::File).unwrap();
    assert_eq!(forgeries(&bob), [1, 0, 0, 0]);
}

#[test]
fn what_is_removed_while_it_is_asked_for_accuses_nobody() {
    let world = World::new();
    let alice = world.connect(ALICE);
    let node = alice.make(NodeId::ROOT, "gone", Make::Directory).unwrap();
    alice.call(Call::Rmdir { parent: NodeId::ROOT, name: Name::new(b"gone").unwrap() }).unwrap();
    assert_eq!(alice.call(Call::Getattr { node }), Err(Refusal::NotFound));
    assert_eq!(alice.lookup(node, "below"), Err(Refusal::NotFound));
    assert_eq!(forgeries(&alice), [0; 4]);
}

#[test]
fn everything_an_answer_tells_of_was_told() {
    let (_world, alice, bob, root) = shared(Rights::ReadWrite);
    // Seen in a listing only, then gone.
    let own_root = NodeId::new(Slot::OWN, root.ino());
    let listed = match bob.call(Call::List { node: root, after: 0 }).unwrap() {
        Answer::Page { entries, .. } => entries[0].node.node,
        other => panic!("{other:?}"),
    };
    let made = std::thread::scope(|scope| {
        let making = scope.spawn(|| bob.make(root, "made", Make::Directory).unwrap());
        let ToVmds::Stale { fence, .. } = alice.receive() else { panic!("alice hears of the change") };
        alice.socket.send(&ToController::Forgotten { fence }, None).unwrap();
        making.join().unwrap()
    });
    for name in ["file", "made"] {
        bob.call(Call::Getattr { node: root }).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| alice.rename((own_root, name), (NodeId::ROOT, name)).unwrap());
            let ToVmds::Stale { fence, .. } = bob.receive() else { panic!("bob hears of the change") };
            bob.socket.send(&ToController::Forgotten { fence }, None).unwrap();
        });
    }
    for node in [listed, made] {
        assert_eq!(bob.call(Call::Getattr { node }), Err(Refusal::NotFound));
    }
    assert_eq!(forgeries(&bob), [0; 4]);
}

/// A request of alice's VMDS that makes a file empty, whose bytes are many.
fn cut(file: NodeId) -> Call {
    Call::Setattr {
        node: file,
        caller: CALLER,
        change: AttrChange { size: Some(0), ..AttrChange::default() },
    }
}

#[test]
fn a_large_cut_that_is_asked_for_again_leaves_what_was_written_since() {
    let world = World::new();
    let alice = world.connect(ALICE);
    let file = alice.make(NodeId::ROOT, "file", Make::File).unwrap();
    let lease = Call::Lease { node: file, write: true, fill: false };
    alice.socket.send(&ToController::Request { id: 1, call: lease }, None).unwrap();
    let leased = alice.socket.receive::<ToVmds>(&mut Vec::new()).unwrap();
    let Some((ToVmds::Reply { result: Ok(Answer::Leased { .. }), .. }, Some(bytes))) = leased else {
        panic!("{leased:?}")
    };
    let bytes = std::fs::File::from(bytes);
    let ask = |repeated| {
        let origin = RequestOrigin { unique: 8, place: 0, repeated };
        alice.socket.send(&ToController::Change { id: 1, origin, call: cut(file) }, None).unwrap();
        let ToVmds::Reply { id: 1, result } = alice.receive() else { panic!("there is a reply") };
        assert!(matches!(result, Ok(Answer::Attr(_))), "{result:?}");
        bytes.metadata().unwrap().len()
    };
    bytes.set_len(1 << 30).unwrap();
    assert_eq!(ask(false), 0);
    bytes.set_len(1 << 30).unwrap();
    assert_eq!(ask(true), 1 << 30);
}

#[test]
fn a_cut_for_a_vmds_that_serves_no_more_is_not_made() {
    let world = World::new();
    let alice = world.connect(ALICE);
    let file = alice.make(NodeId::ROOT, "file", Make::File).unwrap();
    let asked = |link, since| Asked {
        link,
        since,
        id: 1,
        named: (file, None),
        unanswered: InFlight::default().one_more(Duration::ZERO).unwrap(),
    };
    let try_to_cut = |asked: &Asked| world.plane.cut(&alice.session, asked, cut(file), None);
    let (before, _) = FrameSocket::pair().unwrap();
    assert!(try_to_cut(&asked(Arc::new(before), Instant::now())).is_none());
    let link = alice.session.link.lock().clone().unwrap();
    let long_ago = Instant::now().checked_sub(Duration::from_secs(50)).unwrap();
    assert!(try_to_cut(&asked(link.clone(), long_ago)).is_none(), "the VMDS has given it up");
    assert!(try_to_cut(&asked(link, Instant::now())).unwrap().is_ok());
}

#[test]
fn bytes_are_synced_before_a_reply_and_what_has_none_is_no_error() {
    let world = World::new();
    let alice = world.connect(ALICE);
    let file = alice.make(NodeId::ROOT, "file", Make::File).unwrap();
    for data_only in [false, true] {
        for node in [NodeId::ROOT, file] {
            assert_eq!(alice.call(Call::Sync { node, data_only }), Ok(Answer::Done));
        }
        assert!(matches!(
            alice.call(Call::Lease { node: file, write: true, fill: false }),
            Ok(Answer::Leased { .. })
        ));
        assert_eq!(alice.call(Call::Sync { node: file, data_only }), Ok(Answer::Done));
    }
}

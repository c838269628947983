//! Object stores that speak TLS: a VMDS speaks plain HTTP with the controller, which encrypts.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use rustix::process::Signal;
use tests::s3::{Authority, Fault, RequestKind, S3Options, S3Server, ServerTls, User};
use tests::{Random, World, fds_of, wait_until};

use crate::help::{SOON, await_nothing_staged, binaries};

/// Larger than one request of a reader.
const LARGE: usize = 12 * 1024 * 1024 + 12_345;

/// How many sockets the controller has open.
fn sockets(world: &World) -> usize {
    let targets = fds_of(world.controller()).into_iter().map(|(_, target)| target);
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn objects_behind_https_are_read_by_the_vmds_and_its_connections_end_with_it() {
    let world = World::start_on_objects_over_tls(binaries());
    let root = world.mounted("a");
    let before = sockets(&world);
    let mut random = Random::new(21);
    for (name, size) in [("small", 100), ("medium", 100_000), ("large", LARGE)] {
        let bytes = random.bytes(size);
        fs::write(root.join(name), &bytes).unwrap();
        await_nothing_staged(&world);
        assert!(fs::read(root.join(name)).unwrap() == bytes, "{name}");
    }
    let reads = world.objects().requests_of(RequestKind::GetObject);
    let by_key: Vec<_> = reads.iter().filter(|request| request.key.contains("probe")).collect();
    let of_files = reads.len() - by_key.len();
    assert!(of_files > 1, "{reads:?}");
    let theirs = reads.iter().filter(|request| request.presigned && !request.key.contains("probe")).count();
    assert_eq!(theirs, of_files, "the controller reads nothing for it: {reads:?}");
    world.vmds().signal(Signal::KILL);
    assert!(fs::read(root.join("medium")).unwrap().len() == 100_000, "its successor reads on");
    world.ctl(&["umount", root.to_str().unwrap()]);
    wait_until("no connection is left", SOON, || sockets(&world) <= before);
}

#[test]
fn an_https_connection_that_breaks_in_the_middle_costs_no_byte() {
    let world = World::start_on_objects_over_tls(binaries());
    let root = world.mounted("a");
    let bytes = Random::new(22).bytes(LARGE);
    let faults = world.objects().faults();
    for (name, fault) in [
        ("reset before", Fault::ResetBefore),
        ("reset within", Fault::ResetInBody { after: 100_000 }),
        ("cut short", Fault::TruncateBody { after: 77_777 }),
    ] {
        let path = root.join(name);
        fs::write(&path, &bytes).unwrap();
        await_nothing_staged(&world);
        let fault = faults.add(fault.times(3).on(RequestKind::GetObject));
        assert!(fs::read(&path).unwrap() == bytes, "{name}");
        assert_eq!(faults.hits(fault), 3, "{name}");
        faults.clear();
    }
}

fn server(tls: ServerTls) -> S3Server {
    let all = User::new("root", "root-secret").may_do_all();
    S3Server::start(S3Options::new().bucket("data").user(all).tls(tls))
}

/// What `pool add` says of a server when `trusted` is who may sign its certificate.
fn add(world: &World, name: &str, server: &S3Server, trusted: &str) -> Result<String, String> {
    let keys = world.dir().join("keys");
    let text = "[default]\naws_access_key_id = root\naws_secret_access_key = root-secret\n";
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&keys).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let ca = world.dir().join("ca.pem");
    fs::write(&ca, trusted).unwrap();
    let (credentials, endpoint) = (format!("file:{}", keys.display()), server.endpoint());
    let arguments = ["pool", "add", name, "--s3", "data", "--endpoint", &endpoint, "--path-style"];
    let more = ["--credentials", &credentials, "--ca-file", ca.to_str().unwrap()];
    let arguments = [&arguments[..], &more].concat();
    match name {
        "good" => Ok(world.ctl(&arguments)),
        _ => Err(world.ctl_refuses(&arguments)),
    }
}

#[test]
fn an_endpoint_that_is_not_who_it_should_be_is_refused_in_a_sentence() {
    let world = World::start(binaries());
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = server(authority.serve_as("127.0.0.1"));
    let told = add(&world, "bad", &good, stranger.pem()).unwrap_err();
    assert!(told.contains("the endpoint's certificate is signed by nobody who is trusted here"), "{told}");
    let elsewhere = server(authority.serve_as("store.example"));
    let told = add(&world, "bad", &elsewhere, authority.pem()).unwrap_err();
    assert!(told.contains("the endpoint's certificate is for another name"), "{told}");
    let told = add(&world, "bad", &good, "no certificate").unwrap_err();
    assert!(told.contains("there is no certificate (PEM) in "), "{told}");
    assert!(good.requests().is_empty() && elsewhere.requests().is_empty(), "nothing was said to any of them");
    let told = add(&world, "good", &good, authority.pem()).unwrap();
    assert!(told.contains("pool 'good' is ready"), "{told}");
}

//! Promise: whoever takes over a VMDS whose tenant lives in an object store finds no key in it. What is found reads what
//! the tenant may read, for a minute, and does nothing else, whatever is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::wire::Call;
use aws_sigv4::sign::v4::generate_signing_key;
use memchr::memmem;
use tests::{Captured, Random, World, memory_of, wait_until};

use crate::help::{SOON, binaries};

/// More than what is kept in the map.
const SIZE: usize = 100_000;
/// Within this time an address that was given out has ended: a minute, and what clocks may differ.
const ENDED_WITHIN: Duration = Duration::from_secs(80);

/// A signed address, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stolen {
    /// `/bucket/key`.
    path: String,
    query: String,
}

/// Whether there is `part` in any of the pieces.
fn has(memory: &[Vec<u8>], part: &[u8]) -> bool {
    memory.iter().any(|piece| memmem::find(piece, part).is_some())
}

/// All signed addresses in a memory. Pieces of such are among them: what the memory was used for before.
fn addresses(memory: &[Vec<u8>], bucket: &str) -> BTreeSet<Stolen> {
    const SIGNED: &[u8] = b"?X-Amz-";
    let start = format!("/{bucket}/");
    let is_text = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~%/&=".contains(byte);
    let mut found = BTreeSet::new();
    for piece in memory {
        for at in memmem::find_iter(piece, SIGNED) {
            let before = &piece[at.saturating_sub(500)..at];
            let Some(from) = memmem::rfind(before, start.as_bytes()) else { continue };
            let query: Vec<u8> = piece[at + 1..].iter().copied().take_while(is_text).collect();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.insert(Stolen { path: text(&before[from..]), query: text(&query) });
        }
    }
    found
}

/// What is between the store and whoever has no SDK: status and body.
fn ask(store: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> (u16, Vec<u8>) {
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {store}\r\nconnection: close\r\n");
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    let body = if ["PUT", "POST"].contains(&method) { "stolen" } else { "" };
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let mut stream = TcpStream::connect(store).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // What is cut off in the middle is no answer either.
    let _ = stream.read_to_end(&mut answer);
    let end = memmem::find(&answer, b"\r\n\r\n").map_or(answer.len(), |end| end + 4);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer to {method} {target}: {head}")), answer.split_off(end))
}

fn is_given(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Everything in the bucket.
fn contents(world: &World) -> BTreeMap<String, (u64, String)> {
    let bucket = world.bucket();
    assert!(bucket.uploads().is_empty());
    let info = |key: &String| bucket.info(key).map(|info| (key.clone(), (info.length, info.etag)));
    bucket.keys().iter().filter_map(info).collect()
}

/// What may be made of an address: method, target, and what is sent instead of the ETag.
fn uses(stolen: &Stolen, keys: &[String]) -> Vec<(String, String, Option<String>)> {
    let Stolen { path, query } = stolen;
    let bucket = path.split('/').nth(1).unwrap();
    let mut uses = Vec::new();
    let mut add = |method: &str, target: String| uses.push((method.to_owned(), target, None));
    for method in ["HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
        add(method, format!("{path}?{query}"));
    }
    // Every other object there is, and some that there are not.
    let others = keys.iter().map(|key| format!("/{bucket}/{key}")).chain([
        format!("{path}x"),
        format!("/{bucket}/new"),
        format!("{path}/../{}", keys[0]),
        format!("//{bucket}/{}", keys[0]),
        format!("{path}/%2e%2e/%2e%2e/{}", keys[0]),
        format!("{path}%00"),
    ]);
    for other in others.filter(|other| other != path) {
        add("GET", format!("{other}?{query}"));
        add("PUT", format!("{other}?{query}"));
        add("DELETE", format!("{other}?{query}"));
    }
    // Lists of keys, uploads, buckets; and everything else that a query can ask for.
    for list in
        ["list-type=2", "list-type=2&prefix=pool", "uploads", "versions", "acl", "policy", "delimiter=/"]
    {
        for place in [format!("/{bucket}"), format!("/{bucket}/"), "/".to_owned()] {
            add("GET", format!("{place}?{list}&{query}"));
            add("GET", format!("{place}?{query}&{list}"));
        }
    }
    for more in [
        "uploads",
        "uploadId=1&partNumber=1",
        "acl",
        "tagging",
        "versionId=1",
        "partNumber=1",
        "torrent",
        "attributes",
        "response-content-type=text/html",
        "X-Amz-Expires=604800",
        "x-id=PutObject",
    ] {
        for method in ["GET", "PUT", "POST", "DELETE"] {
            add(method, format!("{path}?{query}&{more}"));
            add(method, format!("{path}?{more}&{query}"));
        }
    }
    // Another date, life, signer, or signature.
    let swap = |from: &str, to: &str| query.replace(from, to);
    let last = query.chars().last().map_or('0', |digit| if digit == '0' { '1' } else { '0' });
    let other_signature = format!("{}{last}", &query[..query.len() - 1]);
    for query in [
        swap("X-Amz-Expires=60", "X-Amz-Expires=604800"),
        swap("X-Amz-Date=2", "X-Amz-Date=3"),
        swap("%3Bif-match", ""),
        swap("host%3B", ""),
        swap("X-Amz-Credential=", "X-Amz-Credential=X"),
        swap("X-Amz-Signature", "X-Amz-Nothing"),
        other_signature,
        String::new(),
    ] {
        assert_ne!(query, stolen.query, "nothing is changed");
        add("GET", format!("{path}?{query}"));
    }
    // This version of the object and no other.
    uses.push(("GET".to_owned(), format!("{path}?{query}"), Some("*".to_owned())));
    uses.push(("GET".to_owned(), format!("{path}?{query}"), Some(String::new())));
    uses
}

/// Reads what an address leads to, or a range of it.
fn read(world: &World, stolen: &Stolen, range: Option<&str>) -> (u16, Vec<u8>) {
    let key = stolen.path.splitn(3, '/').nth(2).unwrap();
    let etag = format!("\"{}\"", world.bucket().info(key).map(|info| info.etag).unwrap_or_default());
    let mut headers = vec![("if-match", etag.as_str())];
    headers.extend(range.map(|range| ("range", range)));
    ask(world.objects().address(), "GET", &format!("{}?{}", stolen.path, stolen.query), &headers)
}

/// Fails the test if there is anything in the memory that lets its holder sign, or find the way to what others have.
fn assert_no_secrets(world: &World, memory: &[Vec<u8>]) {
    let secret = world.secret_key();
    assert!(
        has(&memory_of(world.controller()), secret.as_bytes()),
        "what is looked for is found where it is"
    );
    let day = Duration::from_secs(24 * 3600);
    let mut secrets: Vec<(String, Vec<u8>)> = vec![
        ("the secret key".into(), secret.into()),
        ("half of the secret key".into(), secret[..secret.len() / 2].into()),
        ("a path of the controller".into(), world.dir().to_str().unwrap().into()),
        ("what bob has written".into(), b"only bob knows".to_vec()),
        ("a name of bob's".into(), b"name-of-bobs".to_vec()),
    ];
    // What is made of the secret for one day: with it a day's requests can be signed.
    for time in [SystemTime::now() - day, SystemTime::now(), SystemTime::now() + day] {
        let key = generate_signing_key(secret, time, world.objects().region(), "s3");
        secrets.push(("a signing key".into(), key.as_ref().to_vec()));
    }
    for (what, secret) in secrets {
        assert!(!has(memory, &secret), "{what} is in the memory");
    }
}

/// What a VMDS of `alice` holds while she reads a file of her own and one that bob shares with her. Bob has another.
struct Theft {
    world: World,
    captured: Captured,
    memory: Vec<Vec<u8>>,
    /// What bob keeps for himself, as alice's VMDS could name it.
    private: NodeId,
    _open: Vec<File>,
}

fn steal() -> Theft {
    let world = World::start_on_objects(binaries());
    let alice = world.mounted("alice");
    let vmds = world.vmds();
    let bob = world.mounted("bob");
    let mut random = Random::new(41);
    let mut private = random.bytes(SIZE);
    private.splice(..14, *b"only bob knows");
    fs::create_dir(bob.join("shared")).unwrap();
    fs::write(bob.join("name-of-bobs"), &private).unwrap();
    fs::write(bob.join("shared/file"), random.bytes(SIZE)).unwrap();
    fs::write(alice.join("file"), random.bytes(SIZE)).unwrap();
    world.ctl(&["share", "grant", "bob:/shared", "alice:/in", "--rw"]);
    wait_until("all is in the store", SOON, || {
        tests::run(std::process::Command::new("find").arg(world.backing_dir()).args(["-type", "f"]))
            .stdout
            .is_empty()
    });
    // The bytes are in the kernel's memory now; read from the store they are for whoever comes later.
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let open: Vec<File> =
        [alice.join("file"), alice.join("in/file")].iter().map(|path| File::open(path).unwrap()).collect();
    for file in &open {
        file.read_exact_at(&mut [0; 4096], 0).unwrap();
    }
    let slot = NodeId(fs::metadata(alice.join("in")).unwrap().ino()).slot();
    let private = NodeId(fs::metadata(bob.join("name-of-bobs")).unwrap().ino());
    let captured = world.capture(vmds);
    let memory = memory_of(vmds);
    Theft { captured, memory, private: NodeId::new(slot, private.ino()), _open: open, world }
}

#[test]
fn whoever_takes_a_vmds_over_reads_what_its_tenant_may_for_a_minute_and_does_nothing_else() {
    let Theft { world, mut captured, memory, private, _open } = steal();
    assert_no_secrets(&world, &memory);
    let found = addresses(&memory, world.bucket().name());
    let good: Vec<&Stolen> = found.iter().filter(|stolen| is_given(read(&world, stolen, None).0)).collect();
    let place =
        |path: &str| world.ctl_json(&["locate", path])["ranges"][0]["key"].as_str().unwrap().to_owned();
    let may_read: BTreeSet<String> = [place("alice:/file"), place("bob:/shared/file")].into();
    let opened: BTreeSet<String> =
        good.iter().map(|stolen| stolen.path.splitn(4, '/').nth(3).unwrap().to_owned()).collect();
    assert_eq!(opened, may_read, "of {} addresses in the memory", found.len());

    let (before, store) = (contents(&world), world.objects().address());
    let keys: Vec<String> = before.keys().cloned().collect();
    assert_eq!(keys.len(), 3);
    let mut tried = 0;
    for stolen in &good {
        let whole = read(&world, stolen, None).1;
        let (status, part) = read(&world, stolen, Some("bytes=10-19"));
        assert!(status == 206 && part == whole[10..20], "any part of the same object");
        let etag = format!("\"{}\"", before[stolen.path.splitn(3, '/').nth(2).unwrap()].1);
        for (method, target, instead) in uses(stolen, &keys) {
            let etag = instead.as_ref().unwrap_or(&etag);
            let mut headers = vec![("if-match", etag.as_str())];
            headers.retain(|(_, value)| !value.is_empty());
            let (status, _) = ask(store, &method, &target, &headers);
            assert!(!is_given(status), "{method} {target} {headers:?}: {status}");
            tried += 1;
        }
        let target = format!("{}?{}", stolen.path, stolen.query);
        let source = format!("/{}/{}", world.bucket().name(), keys[0]);
        for (name, value) in [("x-amz-copy-source", source.as_str()), ("x-amz-acl", "public-read")] {
            let (status, _) = ask(store, "PUT", &target, &[("if-match", &etag), (name, value)]);
            assert!(!is_given(status), "{name}: {status}");
        }
    }
    // Without an address, on a connection that leads to the store: nothing.
    for target in keys.iter().map(|key| format!("/{}/{key}", world.bucket().name())).chain(["/".into()]) {
        for method in ["GET", "HEAD", "PUT", "DELETE", "POST"] {
            assert!(!is_given(ask(store, method, &target, &[]).0), "{method} {target}");
        }
    }
    // Nor does the controller lead there.
    let lease = Call::Lease { node: private, write: false, fill: true };
    assert_eq!(captured.ask(lease), Err(Refusal::NotFound));
    assert_eq!(captured.ask(Call::Connect { node: private }), Err(Refusal::NotFound));
    assert_eq!(contents(&world), before, "after {tried} tries");
    assert!(tried > 200, "{tried}");

    // What was shared is not any more: within a minute all of it has ended.
    drop(captured);
    world.ctl(&["share", "revoke", "bob:/shared", "alice"]);
    wait_until("all addresses have ended", ENDED_WITHIN, || {
        found.iter().all(|stolen| !is_given(read(&world, stolen, None).0))
    });
    assert_eq!(contents(&world), before);
    world.ctl(&["check"]);
}

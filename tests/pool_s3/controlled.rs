//! A bucket as a pool of a real controller, through `vmdsctl`.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use tests::s3::{S3Options, S3Server, User};
use tests::{Binaries, World};

use crate::{ID, SECRET};

fn world() -> World {
    World::start(Binaries {
        controller: env!("CARGO_BIN_EXE_tests-vmds-controller").into(),
        ctl: env!("CARGO_BIN_EXE_tests-vmdsctl").into(),
        vmds: env!("CARGO_BIN_EXE_tests-vmds").into(),
    })
}

fn server() -> S3Server {
    S3Server::start(S3Options::new().bucket("data").user(User::new(ID, SECRET).may_write("data", "team/")))
}

/// A file with credentials, as `--credentials` names it.
fn credentials(world: &World, secret: &str) -> String {
    let path = world.dir().join(format!("keys-of-{}", secret.len()));
    let mut open = std::fs::OpenOptions::new();
    let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
    write!(file, "[ops]\naws_access_key_id={ID}\naws_secret_access_key={secret}\n").unwrap();
    format!("file:{}#ops", path.display())
}

fn add<'a>(name: &'a str, place: &'a str, endpoint: &'a str, credentials: &'a str) -> [&'a str; 10] {
    ["pool", "add", name, "--s3", place, "--endpoint", endpoint, "--path-style", "--credentials", credentials]
}

#[test]
fn a_bucket_becomes_a_pool_and_shows_no_secret() {
    let (mut world, server) = (world(), server());
    let (endpoint, keys) = (server.endpoint(), credentials(&world, SECRET));
    let told = world.ctl(&add("big", "data/team/one", &endpoint, &keys));
    assert_eq!(told, "pool 'big' is ready: s3://data/team/one\n");
    let pool = world.ctl_json(&["get", "pool", "big"]);
    assert_eq!(pool["status"]["s3"]["conditionalPut"], true, "{pool}");
    assert_eq!(pool["spec"]["s3"]["credentials"]["profile"], "ops");
    assert!(world.ctl(&["pool", "list"]).contains("s3://data/team/one"));
    let shown = world.ctl(&["pool", "show", "big"]);
    assert!(shown.contains("conditional writes  yes"), "{shown}");
    let staging = world.state_dir().join("staging/big").metadata().unwrap();
    assert_eq!(staging.permissions().mode() & 0o777, 0o700);

    let inside = world.ctl_refuses(&add("inner", "data/team/one/two", &endpoint, &keys));
    assert!(inside.contains("pool 'big' has the same objects of the bucket data"), "{inside}");
    world.ctl(&add("beside", "data/team/two", &endpoint, &keys));

    let asked = server.requests().len();
    world.restart_controller();
    world.ctl(&["--timeout", "20s", "apply", "--wait", "-f", &saved(&world, &pool)]);
    assert!(server.requests().len() > asked, "it was looked at again");
    world.ctl(&["pool", "remove", "big"]);
    world.stop_controller();
    assert!(!world.log().contains("panicked"), "{}", world.log());
    for text in [pool.to_string(), shown, world.log()] {
        assert!(!text.contains(SECRET) && !text.contains("X-Amz-Signature"), "{text}");
    }
}

fn saved(world: &World, object: &impl ToString) -> String {
    let path = world.dir().join("pool.json");
    std::fs::write(&path, object.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_bucket_that_cannot_work_is_refused_in_one_sentence_and_leaves_nothing() {
    let (world, server) = (world(), server());
    let (endpoint, keys) = (server.endpoint(), credentials(&world, "notTheSecret"));
    let told = world.ctl_refuses(&add("bad", "data/team", &endpoint, &keys));
    assert!(told.contains("objects cannot be written: the endpoint refuses access"), "{told}");
    let told = world.ctl_refuses(&add("bad", "data/team", &endpoint, "file:/no/such/file"));
    assert!(told.contains("the credentials file /no/such/file cannot be read"), "{told}");
    let told = world.ctl_refuses(&add("bad", "data/team", &endpoint, "env"));
    assert!(told.contains("was started without AWS_ACCESS_KEY_ID"), "{told}");
    assert_eq!(world.ctl_json(&["pool", "list"])["items"].as_array().unwrap().len(), 1);
    assert!(!world.log().contains("notTheSecret"));
}

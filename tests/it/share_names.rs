//! Promise: the grantee's logical name is what was asked for, or what the naming rule makes; what cannot be shared is
//! refused with one sentence and changes nothing; nobody learns who else exists.

use std::fs;

use crate::help::{assert_unknown, items, names, wanted, world};

#[test]
fn without_a_name_the_rule_gives_one() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir_all(alice.join("work/model")).unwrap();
    fs::write(alice.join("work/model/w"), "1").unwrap();
    world.ctl(&["share", "grant", "alice:/work/model", "bob", "--ro"]);
    assert_eq!(fs::read_to_string(bob.join("shares/alice/model/w")).unwrap(), "1");
}

#[test]
fn directories_above_the_name_are_made() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("d")).unwrap();
    world.ctl(&["share", "grant", "alice:/d", "bob:/a/b/c/d", "--ro"]);
    assert!(bob.join("a/b/c/d").is_dir());
    fs::write(bob.join("a/b/own"), "of bob").unwrap();
    assert_eq!(names(&alice), ["d"]);
}

#[test]
fn a_name_may_have_any_bytes_that_text_has() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("mit Leerzeichen: und ü")).unwrap();
    world.ctl(&["share", "grant", "alice:/mit Leerzeichen: und ü", "bob:/von Alice/ü", "--ro"]);
    assert!(bob.join("von Alice/ü").is_dir());
    world.ctl(&["share", "revoke", "alice:/mit Leerzeichen: und ü", "bob"]);
    assert_unknown(&bob.join("von Alice/ü"));
}

#[test]
fn what_cannot_be_shared_is_refused_and_nothing_changes() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("d")).unwrap();
    fs::write(bob.join("taken"), "").unwrap();
    let before = wanted(&world);
    for (from, to) in [
        ("alice:/missing", "bob:/x"),
        ("alice:/d", "nobody:/x"),
        ("nobody:/d", "bob:/x"),
        ("alice:/d", "bob:/taken"),
        ("alice:/d", "bob:/taken/below"),
        ("alice:/d", "alice:/x"),
    ] {
        world.ctl_refuses(&["share", "grant", from, to, "--ro"]);
    }
    assert_eq!(wanted(&world), before);
    assert_eq!(names(&bob), ["taken"]);
    assert_eq!(names(&alice), ["d"]);
    world.ctl_refuses(&["share", "revoke", "alice:/d", "bob"]);
    world.ctl_refuses(&["share", "revoke", "no-such-share"]);
    world.ctl(&["check"]);
}

#[test]
fn a_path_of_a_share_that_makes_no_sense_is_a_usage_error() {
    let world = world();
    world.tenant("alice");
    for arguments in [
        &["share", "grant", "alice", "bob:/x", "--ro"][..],
        &["share", "grant", "alice:relative", "bob:/x", "--ro"],
        &["share", "grant", "alice:/d", "bob:/x"],
        &["share", "grant", "alice:/d", "bob:/x", "--ro", "--rw"],
        &["share", "grant", "alice:/d", "bob:/x", "--ro", "--expires", "soon"],
    ] {
        let outcome = tests::run(&mut world.ctl_command(arguments));
        assert_eq!(outcome.code(), 2, "{outcome}");
    }
}

#[test]
fn shares_are_listed_with_both_sides() {
    let world = world();
    let alice = world.mounted("alice");
    world.tenant("bob");
    fs::create_dir(alice.join("d")).unwrap();
    world.ctl(&["share", "grant", "alice:/d", "bob:/in/d", "--ro", "--name", "weekly", "--expires", "1h"]);
    let table = world.ctl(&["share", "list"]);
    for text in ["weekly", "alice", "/d", "bob", "/in/d"] {
        assert!(table.contains(text), "{text} is missing:\n{table}");
    }
    let list = items(world.ctl_json(&["share", "list"]));
    assert_eq!(list.len(), 1);
    assert_eq!(list[0]["metadata"]["name"], "weekly");
}

#[test]
fn a_tenants_user_learns_the_same_about_a_forbidden_tenant_as_about_none() {
    let world = world();
    let copy = world.dir().join("vmdsctl");
    fs::copy(crate::help::binaries().ctl, &copy).unwrap();
    world.tenant_with("alice", &["--owner", "2001"]);
    world.tenant_with("bob", &["--owner", "2002"]);
    let as_alice = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&copy);
        command.arg("--run-dir").arg(world.run_dir()).args(arguments);
        std::os::unix::process::CommandExt::uid(&mut command, 2001);
        tests::run(&mut command)
    };
    assert_eq!(as_alice(&["tenant", "show", "alice"]).code(), 0);
    for verb in [&["tenant", "show"][..], &["get", "Tenant"], &["tenant", "delete"]] {
        let forbidden = as_alice(&[verb, &["bob"]].concat());
        let missing = as_alice(&[verb, &["eve"]].concat());
        assert_eq!((forbidden.code(), missing.code()), (1, 1), "{forbidden}{missing}");
        assert_eq!(forbidden.stderr.replace("bob", "X"), missing.stderr.replace("eve", "X"));
    }
    let list = as_alice(&["tenant", "list"]);
    assert!(list.stdout.contains("alice") && !list.stdout.contains("bob"), "{list}");
    assert_eq!(as_alice(&["tenant", "create", "mallory"]).code(), 1);
    assert_eq!(as_alice(&["pool", "add", "p", "--posix", "/tmp"]).code(), 1);
    let grant = as_alice(&["share", "grant", "bob:/", "alice:/x", "--rw"]);
    let none = as_alice(&["share", "grant", "eve:/", "alice:/x", "--rw"]);
    assert_eq!((grant.code(), none.code()), (1, 1));
    assert_eq!(grant.stderr.replace("bob", "X"), none.stderr.replace("eve", "X"));
}

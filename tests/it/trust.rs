//! Promise: a VMDS holds nothing that could be stolen: no privilege, no secret, no way into the pool, no storage client.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{Process, World, env_of, fds_of, run, status_field};

use crate::help::world;

/// A world with one tenant that has files open for reading and writing, and its VMDS.
fn busy() -> (World, Process, Vec<fs::File>) {
    let world = world();
    let dir = world.mounted("alice");
    fs::write(dir.join("read"), "text").unwrap();
    let open = vec![fs::File::open(dir.join("read")).unwrap(), fs::File::create(dir.join("write")).unwrap()];
    let vmds = world.vmds();
    (world, vmds, open)
}

#[test]
fn a_vmds_has_no_privileges() {
    let (_world, vmds, _open) = busy();
    let ids = |field: &str| -> Vec<u32> {
        status_field(vmds, field).split_whitespace().map(|id| id.parse().unwrap()).collect()
    };
    for (field, count) in [("Uid", 4), ("Gid", 4)] {
        let ids = ids(field);
        assert!(ids.len() == count && !ids.contains(&0), "{field}: {ids:?}");
    }
    assert_eq!(ids("Groups"), [] as [u32; 0]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status_field(vmds, set), 16), Ok(0), "{set}");
    }
    assert_eq!(status_field(vmds, "NoNewPrivs"), "1");
}

#[test]
fn a_vmds_has_no_environment() {
    let (_world, vmds, _open) = busy();
    assert_eq!(env_of(vmds), b"", "a secret in the environment of the controller must not be inherited");
}

#[test]
fn a_vmds_holds_only_what_it_needs() {
    let (world, vmds, _open) = busy();
    let pool = world.backing_dir();
    let mut leased = 0;
    for (number, leads_to) in fds_of(vmds) {
        let link = format!("/proc/{}/fd/{number}", vmds.pid);
        let shown = leads_to.to_string_lossy().into_owned();
        let plain = ["/dev/fuse", "/dev/null", "socket:", "pipe:", "anon_inode:"];
        if plain.iter().any(|prefix| shown.starts_with(prefix)) {
            continue;
        }
        let metadata = fs::metadata(&link).unwrap();
        let log = number <= 2 && shown.contains("controller-");
        assert!(
            log || metadata.is_file() && Path::new(&shown).starts_with(&pool),
            "descriptor {number}: {shown}"
        );
        leased += u32::from(!log);
    }
    assert!(leased <= 2, "two files are open, {leased} are leased");
    // Its root is a directory of a thread that has ended: nothing is in it, and nothing ever will be.
    let root = format!("/proc/{}/root", vmds.pid);
    assert_eq!(fs::read_link(&root).unwrap(), fs::read_link(format!("/proc/{}/cwd", vmds.pid)).unwrap());
    assert!(fs::read_dir(&root).map_or(true, |mut entries| entries.next().is_none()), "a way to files");
}

#[test]
fn the_pool_is_closed_to_everybody_but_root() {
    let world = world();
    let dir = world.mounted("alice");
    fs::write(dir.join("file"), "secret").unwrap();
    let look = |path: &Path| {
        let mut command = Command::new("find");
        std::os::unix::process::CommandExt::uid(&mut command, 1234).arg(path);
        run(&mut command)
    };
    assert_ne!(look(&world.backing_dir()).code(), 0);
    assert_ne!(look(&world.state_dir()).code(), 0);
}

#[test]
fn two_tenants_vmdses_run_as_different_users() {
    let world = world();
    world.mounted("alice");
    world.mounted("bob");
    let mut uids: Vec<String> = world.vmdses().into_iter().map(|vmds| status_field(vmds, "Uid")).collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), 2, "{uids:?}");
}

fn cargo_tree(arguments: &[&str]) -> tests::Outcome {
    let mut command = Command::new(env!("CARGO"));
    run(command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["tree", "--offline"])
        .args(arguments))
}

#[test]
fn no_storage_client_is_built_into_a_vmds() {
    let tree = cargo_tree(&["-p", "vmds", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    assert_eq!(tree.code(), 0, "{tree}");
    let crates: Vec<&str> = tree.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(
        crates.contains(&"fuser") && crates.contains(&"address-map"),
        "the list is not what it should be"
    );
    for name in &crates {
        // Plain HTTP on connections that it is given is all it speaks: nothing that signs, connects or resolves.
        let bad =
            ["rusoto", "opendal", "object_store", "reqwest", "axum", "hyper-rustls", "rustls", "controller"];
        assert!(!name.starts_with("aws-") && !bad.iter().any(|b| name.starts_with(b)), "{name}");
    }
    assert_ne!(cargo_tree(&["-p", "vmds", "-i", "aws-sdk-s3"]).code(), 0);
}

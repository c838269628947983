//! Promise: programs that nobody here wrote work on a tenant's tree as on a local disk.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{ok, snapshot, tree};

use crate::help::{names, sh, world};

#[test]
fn cp_diff_and_tar_carry_ten_thousand_files_there_and_back() {
    let world = world();
    let mount = world.mounted("alice");
    let (source, back) = (world.dir().join("source"), world.dir().join("back"));
    fs::create_dir(&source).unwrap();
    tree(&source, 42, 10_000);
    let expected = snapshot(&source);
    assert!(expected.len() > 10_000);

    ok(Command::new("cp").arg("-a").arg(&source).arg(mount.join("copy")));
    expected.assert_same(&snapshot(&mount.join("copy")));
    // `diff` would wait for a writer at a pipe: the copy's is compared by the snapshot.
    fs::remove_file(mount.join("copy/pipe")).unwrap();
    let diff = Command::new("diff")
        .args(["-r", "--no-dereference", "--exclude=pipe"])
        .arg(&source)
        .arg(mount.join("copy"))
        .output();
    assert!(diff.unwrap().status.success());

    ok(Command::new("tar")
        .args(["--format=pax", "-C"])
        .arg(mount.join("copy"))
        .arg("-cf")
        .arg(mount.join("all.tar"))
        .arg("."));
    fs::create_dir_all(&back).unwrap();
    ok(Command::new("tar").args(["-xpf"]).arg(mount.join("all.tar")).arg("-C").arg(&back));
    let again = snapshot(&back);
    again.assert_same(&snapshot(&mount.join("copy")));
    ok(Command::new("rm").arg("-r").arg(mount.join("copy")).arg(mount.join("all.tar")));
    assert_eq!(names(&mount), [""; 0]);
    world.ctl(&["check"]);
}

#[test]
fn git_clones_commits_and_checks() {
    let world = world();
    let mount = world.mounted("alice");
    let origin = world.dir().join("origin");
    fs::create_dir_all(&origin).unwrap();
    git(&origin, "init -q -b main .");
    for round in 0..4 {
        fs::create_dir(origin.join(format!("dir{round}"))).unwrap();
        tree(&origin.join(format!("dir{round}")), round, 100);
        // Pipes are not git's business.
        fs::remove_file(origin.join(format!("dir{round}/pipe"))).unwrap();
        git(&origin, "add -A");
        git(&origin, &format!("commit -q -m round-{round}"));
    }
    git(&mount, &format!("clone -q {} clone", origin.display()));
    let clone = mount.join("clone");
    git(&clone, "fsck --full --strict");
    assert_eq!(git(&clone, "status --porcelain"), "");
    git(&clone, "checkout -q -b work HEAD~2");
    fs::write(clone.join("new file"), "made on the mount").unwrap();
    git(&clone, "add -A");
    git(&clone, "commit -q -m mine");
    git(&clone, "rebase -q main");
    git(&clone, "gc -q --aggressive --prune=now");
    git(&clone, "fsck --full --strict");
    assert_eq!(git(&clone, "status --porcelain"), "");
    assert_eq!(git(&clone, "log --oneline").lines().count(), 5);
    world.ctl(&["check"]);
}

fn git(dir: &Path, arguments: &str) -> String {
    let mut command = Command::new("git");
    for (name, value) in [("NAME", "Tester"), ("EMAIL", "tester@localhost")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
    ok(command.args(["-c", "safe.directory=*"]).args(arguments.split(' ')).current_dir(dir))
}

#[test]
fn cargo_builds_and_rebuilds_a_crate_on_the_mount() {
    let world = world();
    let dir = world.mounted("alice").join("hello");
    fs::create_dir_all(dir.join("src")).unwrap();
    let manifest = "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/lib.rs"), "pub fn word() -> &'static str { include_str!(\"word\") }\n").unwrap();
    fs::write(dir.join("src/main.rs"), "fn main() { print!(\"{}\", hello::word()) }\n").unwrap();
    for word in ["first", "second"] {
        fs::write(dir.join("src/word"), word).unwrap();
        ok(cargo(&dir).args(["build", "--offline", "--quiet"]));
        assert_eq!(ok(&mut Command::new(dir.join("target/debug/hello"))), word);
    }
    // Nothing to do: the times that cargo compares are kept.
    let outcome = tests::run(cargo(&dir).args(["build", "--offline", "-v"]));
    assert!(outcome.stderr.contains("Fresh hello"), "{outcome}");
    ok(cargo(&dir).args(["clean", "--quiet"]));
    world.ctl(&["check"]);
}

fn cargo(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(dir).env("CARGO_TARGET_DIR", dir.join("target"));
    command
}

#[test]
fn everyday_tools_work() {
    let world = world();
    let dir = world.mounted("alice");
    let script = "
        seq 1 50000 > numbers
        sort -R numbers | sort -n | cmp - numbers
        split -l 1000 numbers part-
        cat part-* | cmp - numbers
        gzip -k numbers && gunzip -c numbers.gz | cmp - numbers
        sed -i 's/^7$/seven/' numbers && grep -c seven numbers
        dd if=/dev/zero of=zeros bs=64k count=100 conv=fsync 2>/dev/null && [ $(stat -c %s zeros) = 6553600 ]
        truncate -s 1M zeros && [ $(stat -c %s zeros) = 1048576 ]
        install -D -m 750 numbers deep/er/installed && [ $(stat -c %a deep/er/installed) = 750 ]
        find . -name 'part-*' -delete && [ $(ls part-* 2>/dev/null | wc -l) = 0 ]
        ln numbers hard && ln -s numbers soft && [ $(du -s --apparent-size -B1 hard soft | wc -l) = 2 ]
        mv deep shallow && [ -f shallow/er/installed ]
        df . | grep -q 'vmds#alice'
    ";
    assert_eq!(sh(&dir, script), "1\n");
}

//! The real binary, started by hand.

use std::process::{Command, Output};

fn vmds(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmds")).args(arguments).output().expect("the binary starts")
}

#[test]
fn it_says_what_it_is() {
    let version = vmds(&["--version"]);
    assert!(version.status.success());
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("vmds {}\n", env!("CARGO_PKG_VERSION")));
    let help = vmds(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("started by vmds-controller"));
}

#[test]
fn without_its_descriptors_it_says_who_starts_it() {
    let alone = vmds(&[]);
    assert_eq!(alone.status.code(), Some(1));
    let text = String::from_utf8_lossy(&alone.stderr);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("started by vmds-controller") && text.contains("vmdsctl mount"), "{text}");
}

#[test]
fn a_wrong_call_is_told_apart_from_a_failure() {
    assert_eq!(vmds(&["--log", "loud"]).status.code(), Some(2));
    assert_eq!(vmds(&["/mnt"]).status.code(), Some(2));
}

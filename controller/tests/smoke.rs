//! The real programs, as far as they go without a mount: they start, refuse, and say what to do.

use std::path::Path;
use std::process::{Command, Output};

fn run(program: &str, words: &[&str]) -> Output {
    let clean = |command: &mut Command| {
        for name in ["VMDS_RUN_DIR", "VMDS_STATE_DIR", "VMDS_CONFIG"] {
            command.env_remove(name);
        }
    };
    let mut command = Command::new(program);
    clean(&mut command);
    command.args(words).output().expect("the program can be run")
}

fn controller(words: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_vmds-controller"), words)
}

fn ctl(words: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_vmdsctl"), words)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("programs write UTF-8")
}

#[test]
fn both_say_their_version_and_what_they_are() {
    for output in [controller(&["--version"]), ctl(&["--version"])] {
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
    }
    for output in [controller(&["serve", "--help"]), ctl(&["--help"]), ctl(&["share", "grant", "--help"])] {
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Usage:"));
    }
}

#[test]
fn without_a_controller_the_client_says_how_to_start_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let run_dir = dir.path().to_str().expect("a plain path");
    for words in [
        &["status"][..],
        &["tenant", "list"],
        &["mount", "a", "/m"],
        &["share", "grant", "a:/d", "b", "--ro"],
    ] {
        let output = ctl(&[&["--run-dir", run_dir], words].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let told = text(&output.stderr);
        assert!(told.starts_with("error: the controller is not running: nobody answers at "), "{told}");
        assert!(
            told.contains(&format!("hint: start it with: vmds-controller serve --run-dir {run_dir}")),
            "{told}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn bad_usage_is_told_apart_from_failure() {
    for words in [
        &["explode"][..],
        &[],
        &["share", "grant", "a:/d", "b"],
        &["get", "secrets"],
        &["-o", "xml", "status"],
    ] {
        assert_eq!(ctl(words).status.code(), Some(2), "{words:?}");
    }
    for words in [&[][..], &["serve", "--colour"], &["serve", "--config", "/no/such/file"]] {
        assert_eq!(controller(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn all_bad_settings_are_told_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "shards = 'many'\ncolour = 'red'\n").expect("a file");
    let output =
        controller(&["serve", "--run-dir", "here", "--config", file.to_str().expect("a plain path")]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for part in ["3 errors", "shards in ", "colour in ", "run_dir: 'here'"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[test]
fn completions_are_written() {
    let output = ctl(&["completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("vmdsctl"));
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let output = ctl(&["apply", "-f", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: /no/such/file cannot be read"));
    assert!(!Path::new("/no/such/file").exists());
}

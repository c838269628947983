//! Promise: the file system stressors of `stress-ng` find on a mount what they find on ext4. `tests/run` installs it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::{full, ok, run_within};

use crate::help::world;

/// How long each stressor runs, every day and in full: seconds.
const SECONDS: (u32, u32) = (1, 10);
/// Longest time one may take until it has cleaned up.
const PATIENCE: Duration = Duration::from_secs(300);
/// Fewest stressors that the class has.
const STRESSORS_MIN: usize = 45;
/// What `stress-ng` exits with when the stressor does not work on this machine.
const NOT_HERE: i32 = 3;
/// Stressors that do their work elsewhere than in the directory they are given.
const ELSEWHERE: [&str; 3] = ["bind-mount", "binderfs", "procfs"];
/// Stressors that skip themselves on a mount. `docs/SEMANTICS.md` says why these and the ones above are excluded.
const SKIPPED: [&str; 1] = ["fiemap"];

/// How a stressor ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// It has found that it cannot work here.
    Skipped,
    Failed(String),
}

/// Two instances of a stressor that check what they do.
fn stress(stressor: &str, dir: &Path) -> Verdict {
    let seconds = if full() { SECONDS.1 } else { SECONDS.0 };
    let mut command = Command::new("stress-ng");
    command.args([&format!("--{stressor}"), "2", "--verify", "--timeout", &seconds.to_string()]);
    let outcome = run_within(PATIENCE, command.arg("--temp-path").arg(dir).current_dir(dir));
    let said = outcome.to_string();
    if outcome.code() == NOT_HERE || (outcome.status.success() && said.contains("skipping stress")) {
        Verdict::Skipped
    } else if outcome.status.success() && !said.contains("fail:") {
        Verdict::Passed
    } else {
        Verdict::Failed(said)
    }
}

/// The stressors of the class.
fn stressors() -> Vec<String> {
    // It is an error to ask what is in a class, but answered.
    let answer = run_within(PATIENCE, Command::new("stress-ng").args(["--class", "filesystem?"])).to_string();
    let (_, list) = answer.split_once("stressors:").unwrap_or_else(|| panic!("no stressors: {answer}"));
    let list: Vec<String> = list.split_whitespace().map(str::to_owned).collect();
    assert!(list.len() >= STRESSORS_MIN, "{list:?}");
    list
}

/// Runs all stressors in `dir`; those that do not pass there must not pass in `local` either.
fn stress_all(dir: &Path, local: &Path) {
    fs::create_dir(local).unwrap();
    let (mut passed, mut skipped) = (0, Vec::new());
    let stressors = stressors();
    for stressor in stressors.iter().filter(|stressor| !ELSEWHERE.contains(&stressor.as_str())) {
        match stress(stressor, dir) {
            Verdict::Passed => passed += 1,
            Verdict::Skipped if SKIPPED.contains(&stressor.as_str()) => skipped.push(stressor.as_str()),
            other => {
                assert_eq!(other, stress(stressor, local), "{stressor} finds something else on ext4");
                skipped.push(stressor);
            }
        }
        let left = ok(Command::new("ls").arg("-A").arg(dir));
        assert!(left.is_empty(), "{stressor} could not remove {left}");
    }
    eprintln!("stress-ng: {passed} passed, {} did not, on ext4 neither: {skipped:?}", skipped.len());
    assert!(passed + skipped.len() + ELSEWHERE.len() >= STRESSORS_MIN && skipped.len() < 5, "{skipped:?}");
}

#[test]
fn stressors_find_what_they_find_on_ext4() {
    let world = world();
    let dir = world.mounted("alice");
    stress_all(&dir, &world.dir().join("local"));
    world.ctl(&["check"]);
}

#[test]
fn stressors_find_the_same_with_a_quota() {
    let world = world();
    // One stressor allocates up to the largest size that a file can have, twice at the same time.
    world.tenant_with("alice", &["--quota-bytes", "15EiB"]);
    let dir = world.mount("alice");
    stress_all(&dir, &world.dir().join("local"));
    world.ctl(&["check"]);
}

#[test]
fn what_is_excluded_is_public() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SEMANTICS.md")).unwrap();
    for name in ELSEWHERE.iter().chain(&SKIPPED) {
        assert!(text.contains(&format!("`{name}`")), "docs/SEMANTICS.md does not say why {name} is excluded");
    }
}

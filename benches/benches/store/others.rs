//! Other mounts of the same store.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::store::Place;

/// Those that are measured.
pub(crate) const OTHERS: [&str; 2] = ["s3fs", "rclone"];
/// How long one may take to mount.
const MOUNTS_WITHIN: Duration = Duration::from_secs(20);

/// A mount by another program. Dropping it unmounts.
pub(crate) struct Mounted {
    dir: tempfile::TempDir,
    point: PathBuf,
    child: Child,
}

impl Mounted {
    /// Mounts with a program; `None` if it is not there, or does not work with this store.
    pub(crate) fn start(program: &str, place: &Place) -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let point = dir.path().join("mount");
        fs::create_dir(&point).ok()?;
        let mut command = match program {
            "s3fs" => s3fs(dir.path(), &point, place),
            _ => rclone(&point, place),
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let mut mounted = Self { dir, point, child };
        let deadline = Instant::now() + MOUNTS_WITHIN;
        while Instant::now() < deadline && mounted.child.try_wait().ok()?.is_none() {
            let there = tests::mounts_under(mounted.dir.path());
            if !there.is_empty() && fs::write(mounted.dir().join("probe"), b"x").is_ok() {
                return Some(mounted);
            }
            sleep(Duration::from_millis(50));
        }
        None
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> &Path {
        &self.point
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tests::detach_all_under(self.dir.path());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn s3fs(dir: &Path, point: &Path, place: &Place) -> Command {
    let keys = dir.join("keys");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&keys);
    let written = file.and_then(|mut file| writeln!(file, "{}:{}", place.access_key, place.secret_key));
    written.expect("write the credentials");
    let mut command = Command::new("s3fs");
    // A path leads to a directory that is there; none, to the bucket itself.
    let path = if place.prefix.is_empty() {
        String::new()
    } else {
        format!(":/{}", place.key("").trim_end_matches('/'))
    };
    command.arg(format!("{}{path}", place.bucket)).arg(point).args([
        "-f",
        "-o",
        "use_path_request_style",
        "-o",
        "sigv4",
    ]);
    command.arg("-o").arg(format!("url={}", place.endpoint));
    command.arg("-o").arg(format!("endpoint={}", place.region));
    command.arg("-o").arg(format!("passwd_file={}", keys.display()));
    command
}

/// Without its cache, as with it `close` returns before anything is in the store.
fn rclone(point: &Path, place: &Place) -> Command {
    let mut command = Command::new("rclone");
    command.arg("mount").arg(format!("bench:{}/{}", place.bucket, place.key("rclone"))).arg(point);
    command.args(["--vfs-cache-mode", "off", "--s3-no-check-bucket", "--config", "/dev/null"]);
    // It cannot be told of certificates in this way.
    command.env_remove("AWS_CA_BUNDLE");
    for (name, value) in [
        ("TYPE", "s3"),
        ("PROVIDER", "Other"),
        ("ACCESS_KEY_ID", place.access_key.as_str()),
        ("SECRET_ACCESS_KEY", &place.secret_key),
        ("REGION", &place.region),
        ("ENDPOINT", &place.endpoint),
        ("FORCE_PATH_STYLE", "true"),
    ] {
        command.env(format!("RCLONE_CONFIG_BENCH_{name}"), value);
    }
    command
}

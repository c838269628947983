//! A whole control plane over a real socket, on services that only remember: for the tests of the API and the CLI.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Uid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bind;
use crate::daemon::ControlPlane;
use crate::reconcile::fakes::Fixture;

/// The user that owns the tenant `a`.
pub(crate) const ALICE: u32 = 12_345;
/// A running controller on services that only remember.
pub(crate) struct Server {
    pub(crate) fixture: Fixture,
    control: Option<ControlPlane>,
    pub(crate) dir: TempDir,
}

impl Server {
    /// A controller with a pool, tenants `a` (of Alice) and `b`, both ready.
    pub(crate) async fn start() -> Self {
        let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let listener = bind(&dir.path().join("api.sock")).unwrap();
        let control = ControlPlane::start(fixture.store.clone(), fixture.services(), 16, listener);
        let server = Self { fixture, control: Some(control), dir };
        let pool = server.dir.path().join("pool");
        std::fs::create_dir(&pool).unwrap();
        server.make("pools/default", json!({"posix": {"path": pool}})).await;
        server.make("tenants/a", json!({"owners": [ALICE]})).await;
        server.make("tenants/b", json!({})).await;
        server
    }

    pub(crate) async fn stop(mut self) {
        self.control.take().unwrap().stop().await;
    }

    /// What a user is answered: status and body.
    pub(crate) async fn ask(&self, uid: u32, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = format!("{method} {path}");
        let text = self.raw(uid, &request, &body).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())))
    }

    pub(crate) async fn raw(&self, uid: u32, request: &str, body: &str) -> String {
        let (socket, length) = (self.socket(), body.len());
        let message = format!(
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let talk = move || {
            let mut stream = connect(&socket, uid);
            stream.write_all(message.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        tokio::task::spawn_blocking(talk).await.unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// Makes a resource as the operator and waits until it is ready.
    pub(crate) async fn make(&self, path: &str, spec: Value) {
        let (status, body) = self.ask(0, "PUT", &format!("/v1/{path}"), Some(json!({"spec": spec}))).await;
        assert_eq!(status, 201, "{body}");
        self.until(path, |object| object["status"]["conditions"][0]["status"] == "True").await;
    }

    pub(crate) async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1000 {
            let (_, object) = self.ask(0, "GET", &format!("/v1/{path}"), None).await;
            if holds(&object) {
                return object;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path} did not become what it should be");
    }
}

/// Connects as another user: the kernel tells the server the uid of the thread that connects.
pub(crate) fn connect(socket: &Path, uid: u32) -> UnixStream {
    let socket = socket.to_owned();
    let connecting = move || {
        if uid != 0 {
            let uid = Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("these tests run as root");
        }
        UnixStream::connect(socket).unwrap()
    };
    std::thread::spawn(connecting).join().unwrap()
}

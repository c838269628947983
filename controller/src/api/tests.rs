//! Tests of the API over a real socket.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use address_map::ids::TenantId;
use address_map::record::Usage;
use serde_json::{Value, json};

use super::testing::{ALICE, Server, connect};
use crate::resource::Kind;

/// A user who owns nothing.
const MALLORY: u32 = 54_321;

fn share(from: &str, to: &str) -> Option<Value> {
    Some(
        json!({"spec": {"from": {"tenant": from, "path": "/d"}, "to": {"tenant": to}, "rights": "readOnly"}}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_wished_for_read_and_deleted() {
    let server = Server::start().await;
    let (status, tenant) = server.ask(0, "GET", "/v1/tenants/a", None).await;
    assert_eq!((status, &tenant["status"]["tenantId"]), (200, &json!(1)));
    let stale = json!({"metadata": {"resourceVersion": 1}, "spec": {"quota": {"inodes": 9}}});
    assert_eq!(server.ask(0, "PUT", "/v1/tenants/a", Some(stale)).await.0, 409);
    let text = server.raw(0, "PUT /v1/tenants/a", &json!({"spec": tenant["spec"]}).to_string()).await;
    assert!(text.contains("vmds-outcome: unchanged"), "{text}");

    let (status, list) = server.ask(0, "GET", "/v1/tenants", None).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 2));
    assert_eq!(list["kind"], "TenantList");

    assert_eq!(server.ask(0, "DELETE", "/v1/tenants/b", None).await.0, 202);
    server.until("tenants/b", |answer| answer["error"]["kind"] == "NotFound").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_takes_long_is_told_line_by_line_and_is_for_the_operator() {
    let server = Server::start().await;
    let wish = json!({"bucket": "data", "path": "/in", "mode": 420}).to_string();
    let (import, check) = ("POST /v1/tenants/a/import", "POST /v1/pools/default/check?grace=60");
    for (request, body, lines) in [
        (import, wish.as_str(), [r#"{"type":"progress","files":1"#, r#"{"type":"done","files":2"#]),
        (
            check,
            "",
            [
                r#"{"type":"found","problem":"missing","tenant":"a","key":"k1"}"#,
                r#"{"type":"done","objects":1"#,
            ],
        ),
    ] {
        let text = server.raw(0, request, body).await;
        let places: Vec<_> = lines.iter().map(|line| text.find(line)).collect();
        assert!(places[0].is_some() && places[0] < places[1], "{text}");
        for uid in [ALICE, MALLORY] {
            assert!(server.raw(uid, request, body).await.starts_with("HTTP/1.1 404"), "{request}");
        }
    }
    for bad in [r#"{"bucket": "data"}"#, r#"{"bucket": "d", "path": "/in", "mode": 420, "x": 1}"#] {
        assert!(server.raw(0, import, bad).await.starts_with("HTTP/1.1 400"), "{bad}");
    }
    for bad in
        [r#"{"bucket": "d", "path": "in", "mode": 420}"#, r#"{"bucket": "d", "path": "/in", "mode": 2048}"#]
    {
        assert!(server.raw(0, import, bad).await.starts_with("HTTP/1.1 422"), "{bad}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_told_with_the_right_code() {
    let server = Server::start().await;
    let mut bodies = Vec::new();
    for (request, body, expected) in [
        ("GET /v1/secrets", "", 404),
        ("GET /v2", "", 404),
        ("PATCH /v1/tenants/a", "", 404),
        ("GET /v1/tenants?colour=red", "", 400),
        ("PUT /v1/tenants/c", "no json", 400),
        ("PUT /v1/tenants/c", r#"{"spec": {}, "extra": 1}"#, 400),
        ("PUT /v1/tenants/c", r#"{"metadata": {"name": "d"}}"#, 400),
        ("PUT /v1/tenants/c", r#"{"kind": "Pool"}"#, 400),
        ("POST /v1/tenants", "{}", 400),
        ("PUT /v1/tenants/c", r#"{"spec": {"quota": {"bytes": "x"}}}"#, 422),
        ("PUT /v1/tenants/C", r#"{"spec": {}}"#, 422),
        ("GET /v1/tenants?watch=1&from=999999", "", 410),
        ("GET /v1/tenants/a/locate?path=data", "", 422),
        ("GET /v1/tenants/nobody/locate?path=/d", "", 404),
    ] {
        let text = server.raw(0, request, body).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {expected} ")), "{request}: {text}");
        bodies.push(serde_json::from_str::<Value>(text.split_once("\r\n\r\n").unwrap().1).unwrap());
    }
    assert!(bodies.iter().all(|body| body["error"]["message"].is_string()));
    assert!(bodies[9]["error"]["message"].as_str().unwrap().starts_with("spec.quota.bytes: "));
    let large = "x".repeat((1 << 20) + 1);
    assert!(server.raw(0, "PUT /v1/tenants/c", &large).await.starts_with("HTTP/1.1 400 "));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_data_is_deleted_only_when_purged() {
    let server = Server::start().await;
    server.fixture.map.usage.lock().insert(TenantId(2), Usage { bytes: 2048, inodes: 3 });
    let (status, body) = server.ask(0, "DELETE", "/v1/tenants/b", None).await;
    assert_eq!(status, 409);
    assert_eq!(body["error"]["message"], "the tenant 'b' has 2KiB in 2 files and directories");
    assert!(body["error"]["hint"].as_str().unwrap().contains("--purge"));

    server.make("shares/s", share("a", "b").unwrap()["spec"].clone()).await;
    let (_, body) = server.ask(0, "DELETE", "/v1/tenants/b", None).await;
    assert_eq!(body["error"]["message"], "the tenant 'b' is in use by share s");
    assert_eq!(server.ask(0, "DELETE", "/v1/tenants/b?purge=1", None).await.0, 202);
    server.until("tenants/b", |answer| answer["error"]["kind"] == "NotFound").await;
    assert_eq!(server.ask(0, "GET", "/v1/shares/s", None).await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_says_who_calls_and_others_tenants_do_not_exist() {
    let server = Server::start().await;
    for (uid, request, body, expected) in [
        (ALICE, "GET /v1/tenants/a", None, 200),
        (ALICE, "GET /v1/tenants/b", None, 404),
        (MALLORY, "GET /v1/tenants/a", None, 404),
        (ALICE, "GET /v1/pools/default", None, 404),
        (ALICE, "PUT /v1/tenants/a", Some(json!({"spec": {}})), 404),
        (ALICE, "PUT /v1/tenants/mine", Some(json!({"spec": {}})), 404),
        (ALICE, "DELETE /v1/tenants/a?purge=1", None, 404),
        (ALICE, "POST /v1/check", None, 404),
        (ALICE, "GET /metrics", None, 404),
        (ALICE, "GET /healthz", None, 200),
        (ALICE, "GET /v1/tenants/a/locate?path=/f", None, 200),
        (MALLORY, "GET /v1/tenants/a/locate?path=/f", None, 404),
        (MALLORY, "PUT /v1/shares/a-x", share("a", "b"), 404),
        (ALICE, "PUT /v1/shares/x", share("a", "b"), 422),
        (ALICE, "PUT /v1/shares/a-x", share("a", "b"), 201),
        (MALLORY, "GET /v1/shares/a-x", None, 404),
        (MALLORY, "DELETE /v1/shares/a-x", None, 404),
        (ALICE, "DELETE /v1/shares/a-x", None, 202),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        let (status, answer) = server.ask(uid, method, path, body).await;
        assert_eq!(status, expected, "{uid} {request}: {answer}");
    }
    let (_, list) = server.ask(ALICE, "GET", "/v1/tenants", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let (_, report) = server.ask(MALLORY, "GET", "/v1/status", None).await;
    assert_eq!(report["resources"]["tenants"]["total"], 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_not_told_whether_a_grantee_exists() {
    let server = Server::start().await;
    server.fixture.map.taken.lock().extend(["/d".to_owned()]);
    let mut told = Vec::new();
    for (name, to) in [("a-known", "b"), ("a-unknown", "nobody")] {
        let mut wish = share("a", to).unwrap();
        wish["spec"]["to"]["path"] = json!("/d");
        assert_eq!(server.ask(ALICE, "PUT", &format!("/v1/shares/{name}"), Some(wish)).await.0, 201);
        server.until(&format!("shares/{name}"), |s| s["status"]["observedGeneration"] == 1).await;
        let (_, seen) = server.ask(ALICE, "GET", &format!("/v1/shares/{name}"), None).await;
        let mut status = seen["status"].clone();
        status["shareId"] = json!(0);
        told.push(status);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0]["conditions"][0]["message"], "the grantee cannot take this share");
    let (_, all) = server.ask(0, "GET", "/v1/shares/a-unknown", None).await;
    assert_eq!(all["status"]["conditions"][0]["reason"], "GranteeMissing");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_mount_on_directories_of_their_own() {
    let server = Server::start().await;
    let own = server.dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let post = |uid: u32, body: Value| server.ask(uid, "POST", "/v1/mounts?wait=10", Some(body));
    let (status, body) = post(ALICE, json!({"tenant": "a", "dir": own})).await;
    assert_eq!(status, 422, "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("does not belong to you"));
    std::os::unix::fs::chown(&own, Some(ALICE), None).unwrap();
    let with_suid = json!({"tenant": "a", "dir": own, "suid": true});
    assert_eq!(post(ALICE, with_suid).await.0, 422);
    assert_eq!(post(ALICE, json!({"tenant": "b", "dir": own})).await.0, 404);
    let (status, mount) = post(ALICE, json!({"tenant": "a", "dir": own})).await;
    assert_eq!((status, &mount["status"]["serving"]), (201, &json!(true)));
    assert_eq!(server.fixture.mounts.orders.lock()[&own].dir_owner, Some(ALICE));
    assert_eq!(post(ALICE, json!({"tenant": "a", "dir": own})).await.0, 200, "it is there already");
    let name = mount["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(server.ask(MALLORY, "DELETE", &format!("/v1/mounts/{name}"), None).await.0, 404);
    assert_eq!(server.ask(ALICE, "DELETE", &format!("/v1/mounts/{name}"), None).await.0, 202);
    server.until(&format!("mounts/{name}"), |answer| answer["error"]["kind"] == "NotFound").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_fails_is_undone_and_says_why() {
    let server = Server::start().await;
    *server.fixture.mounts.fails.lock() = Some("/nowhere does not exist".to_owned());
    let wish = json!({"tenant": "a", "dir": "/nowhere"});
    let (status, body) = server.ask(0, "POST", "/v1/mounts?wait=10", Some(wish)).await;
    assert_eq!((status, &body["error"]["message"]), (422, &json!("/nowhere does not exist")));
    server.until("mounts/nowhere", |answer| answer["error"]["kind"] == "NotFound").await;
    let (status, _) =
        server.ask(0, "POST", "/v1/mounts", Some(json!({"tenant": "nobody", "dir": "/m"}))).await;
    assert_eq!(status, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_streamed_to_those_who_may_see_them() {
    let server = Server::start().await;
    let from = server.fixture.store.version();
    let socket = server.socket();
    let (told, lines) = std::sync::mpsc::channel();
    let watching = std::thread::spawn(move || {
        let mut stream = connect(&socket, ALICE);
        write!(stream, "GET /v1/shares?watch=1&from={from} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if line.starts_with('{') {
                let _ = told.send(serde_json::from_str::<Value>(&line).unwrap());
            }
        }
    });
    server.fixture.apply(Kind::Share, "b-x", share("b", "a").unwrap()["spec"].clone());
    server.fixture.apply(Kind::Share, "a-x", share("a", "b").unwrap()["spec"].clone());
    let next = || lines.recv_timeout(Duration::from_secs(10)).unwrap();
    let first = std::iter::repeat_with(next).find(|line| line["type"] != "bookmark").unwrap();
    assert_eq!((&first["type"], &first["object"]["metadata"]["name"]), (&json!("put"), &json!("a-x")));
    assert!(first["resourceVersion"].as_u64().unwrap() > from);
    server.fixture.delete(Kind::Share, "a-x", false);
    let last = std::iter::repeat_with(next).find(|line| line["type"] == "deleted").unwrap();
    assert_eq!(last["object"]["metadata"]["name"], "a-x");
    server.stop().await;
    watching.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn overviews() {
    let server = Server::start().await;
    let (_, report) = server.ask(0, "GET", "/v1/status", None).await;
    assert_eq!(report["resources"]["tenants"], json!({"total": 2, "ready": 2}));
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    let (status, metrics) = server.ask(0, "GET", "/metrics", None).await;
    assert_eq!(status, 200);
    assert!(
        metrics.as_str().unwrap().contains("vmds_resources{kind=\"Tenant\",ready=\"true\"} 2"),
        "{metrics}"
    );
    let (_, checked) = server.ask(0, "POST", "/v1/check", None).await;
    assert_eq!(checked, json!({"tenants": 1, "inodes": 2, "entries": 1, "problems": []}));
    let (_, checked) = server.ask(0, "POST", "/v1/check?tenant=a", None).await;
    assert_eq!(checked["problems"], json!(["inode 7 has no name"]));
    let (_, located) = server.ask(0, "GET", "/v1/tenants/a/locate?path=/f", None).await;
    assert_eq!(located["ranges"][0]["path"], "/pool/k1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_as_it_is_now() {
    let server = Server::start().await;
    server.fixture.map.usage.lock().insert(TenantId(1), Usage { bytes: 7, inodes: 3 });
    let (_, tenant) = server.ask(ALICE, "GET", "/v1/tenants/a", None).await;
    assert_eq!(tenant["status"]["usage"], json!({"bytes": 7, "inodes": 3}));
    let (_, list) = server.ask(0, "GET", "/v1/tenants", None).await;
    assert_eq!(list["items"][0]["status"]["usage"]["bytes"], 7);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmds_is_replaced_for_those_who_may() {
    let server = Server::start().await;
    let upgrade = |uid, tenant: &str| {
        let path = format!("/v1/tenants/{tenant}/upgrade");
        let server = &server;
        async move { server.ask(uid, "POST", &path, None).await }
    };
    assert_eq!(upgrade(ALICE, "a").await.0, 404, "it is not mounted");
    server.make("mounts/m", json!({"tenant": "a", "dir": "/m"})).await;
    for (uid, pid) in [(0, 4243), (ALICE, 4244)] {
        let (status, view) = upgrade(uid, "a").await;
        assert_eq!((status, &view["pid"], &view["pidBefore"]), (200, &json!(pid), &json!(pid - 1)));
    }
    for (uid, tenant) in [(MALLORY, "a"), (ALICE, "b"), (0, "nobody")] {
        let (status, answer) = upgrade(uid, tenant).await;
        let sentence = format!("there is no tenant '{tenant}'");
        assert_eq!((status, answer["error"]["message"].as_str()), (404, Some(sentence.as_str())));
    }
    *server.fixture.mounts.fails.lock() = Some("other terms; the one before goes on".to_owned());
    let (status, answer) = upgrade(0, "a").await;
    assert_eq!((status, answer["error"]["kind"].as_str()), (409, Some("Conflict")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grantee_drops_a_share_and_the_owner_learns_of_it() {
    let server = Server::start().await;
    assert_eq!(server.ask(0, "PUT", "/v1/shares/b-s", share("b", "a")).await.0, 201);
    server.until("shares/b-s", |share| share["status"]["path"] == "/shares/b/d").await;
    let drop = |uid, tenant: &str, path: &str| {
        let path = format!("/v1/tenants/{tenant}/drop?path={path}");
        let server = &server;
        async move { server.ask(uid, "POST", &path, None).await }
    };
    assert_eq!(drop(MALLORY, "a", "/shares/b/d").await.0, 404);
    assert_eq!(drop(ALICE, "b", "/d").await.0, 404, "the owner revokes instead");
    assert_eq!(drop(ALICE, "a", "/elsewhere").await.0, 422);
    assert_eq!(drop(ALICE, "a", "shares").await.0, 422);
    let (status, view) = drop(ALICE, "a", "/shares/b/d").await;
    assert_eq!((status, &view["mountsDropped"]), (200, &json!(1)));
    let dropped = |share: &Value| share["status"]["conditions"][0]["reason"] == "Dropped";
    let told = server.until("shares/b-s", dropped).await;
    assert_eq!(told["status"]["conditions"][0]["status"], "False");
    server.stop().await;
}

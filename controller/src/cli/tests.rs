//! Tests of the verbs against a running control plane on services that only remember. They run as root, who is the
//! operator.

use std::time::Duration;

use address_map::ids::TenantId;
use address_map::record::Usage;
use clap::Parser;
use serde_json::json;

use super::args::{Arguments, Format};
use super::client::Client;
use super::{CliError, Run, execute};
use crate::api::testing::Server;
use crate::resource::Kind;

/// Types a command; its exit code or error.
async fn ctl(server: &Server, line: &str) -> Result<String, CliError> {
    let words = std::iter::once("vmdsctl").chain(line.split(' '));
    let arguments = Arguments::try_parse_from(words).unwrap();
    let run =
        Run { client: Client::new(server.dir.path()), format: Format::Json, timeout: arguments.timeout };
    execute(&run, arguments.command).await.map(|code| format!("{code:?}"))
}

async fn fails(server: &Server, line: &str) -> String {
    ctl(server, line).await.expect_err(line).message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_comes_and_goes() {
    let server = Server::start().await;
    ctl(&server, "tenant create c --quota-bytes 1GiB").await.unwrap();
    assert!(server.fixture.object(Kind::Tenant, "c").is_ready());
    ctl(&server, "tenant create c --quota-bytes 1GiB").await.unwrap();
    let other = fails(&server, "tenant create c --quota-bytes 2GiB").await;
    assert_eq!(other, "the tenant 'c' exists already, with other settings");
    server.fixture.map.usage.lock().insert(TenantId(3), Usage { bytes: 1, inodes: 2 });
    let full = ctl(&server, "tenant delete c").await.unwrap_err();
    assert_eq!(full.message, "the tenant 'c' has 1B in 1 files and directories");
    assert!(full.hint.unwrap().contains("--purge"));
    ctl(&server, "tenant delete c --purge").await.unwrap();
    assert!(server.fixture.gone(Kind::Tenant, "c"));
    assert_eq!(fails(&server, "tenant show c").await, "there is no tenant 'c'");
    for line in ["tenant list", "tenant show a", "get pools", "get pool default", "status", "locate a:/f"] {
        ctl(&server, line).await.expect(line);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_come_about_leaves_nothing() {
    let server = Server::start().await;
    let started = std::time::Instant::now();
    assert_eq!(fails(&server, "share grant a:/d nobody --ro --name s").await, "there is no tenant 'nobody'");
    assert!(fails(&server, "pool add p --posix /no/such/dir").await.contains("does not exist"));
    assert!(fails(&server, "tenant create c --pool p").await.starts_with("there is no pool 'p'"));
    *server.fixture.mounts.fails.lock() = Some("no room".to_owned());
    assert_eq!(fails(&server, "mount a /m").await, "no room");
    for (kind, name) in [(Kind::Share, "s"), (Kind::Pool, "p"), (Kind::Tenant, "c"), (Kind::Mount, "m")] {
        server.until(&format!("{}/{name}", kind.info().plural), |a| a["error"]["kind"] == "NotFound").await;
    }
    assert!(started.elapsed() < Duration::from_secs(20), "nobody waited for the timeout");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_in_a_bucket() {
    let server = Server::start().await;
    let add =
        "pool add big --s3 data/vmds --endpoint http://127.0.0.1:1 --path-style --credentials file:/k#p";
    ctl(&server, add).await.unwrap();
    let pool = server.fixture.object(Kind::Pool, "big");
    assert!(pool.is_ready());
    let expected = json!({"s3": {"bucket": "data", "prefix": "vmds", "endpoint": "http://127.0.0.1:1",
        "pathStyle": true, "credentials": {"file": "/k", "profile": "p"}}});
    assert_eq!(pool.spec, expected);
    for line in ["pool list", "pool show big", "pool remove big"] {
        ctl(&server, line).await.expect(line);
    }
    assert!(server.fixture.gone(Kind::Pool, "big"));
    let refused = fails(&server, "pool add bad --s3 Data --region r --credentials env").await;
    assert!(refused.contains("a bucket has 3 to 63 lower-case letters"), "{refused}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn importing_and_checking_a_pool() {
    let server = Server::start().await;
    // Reconcilers work meanwhile.
    let calls = || {
        let calls = server.fixture.calls().into_iter();
        calls.filter(|call| call.starts_with("import") || call.starts_with("check")).collect::<Vec<_>>()
    };
    ctl(&server, "import data/train/ a:/in --mode 600 -o table").await.unwrap();
    assert_eq!(calls(), ["import data/train at /in mode 600"]);
    let told = fails(&server, "import data/train nobody:/in").await;
    assert_eq!(told, "there is no tenant 'nobody'");
    let told = fails(&server, "import data/train a:/in --pool none").await;
    assert_eq!(told, "there is no pool 'none'");
    let failed = format!("{:?}", std::process::ExitCode::FAILURE);
    for format in ["json", "yaml", "table"] {
        assert_eq!(ctl(&server, &format!("pool check default -o {format}")).await.unwrap(), failed);
    }
    assert_eq!(calls(), ["check pool 1"; 3]);
    assert_eq!(fails(&server, "pool check none").await, "there is no pool 'none'");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounting_and_unmounting() {
    let server = Server::start().await;
    ctl(&server, "mount a /m --noexec").await.unwrap();
    assert!(server.fixture.object(Kind::Mount, "m").is_ready());
    *server.fixture.mounts.busy.lock() = Some("/m is in use by 42 (vi)".to_owned());
    assert_eq!(fails(&server, "umount /m").await, "/m is in use by 42 (vi)");
    assert!(server.fixture.object(Kind::Mount, "m").is_ready());
    ctl(&server, "mount a /m --options remount,ro,exec").await.unwrap();
    let flags = server.fixture.read::<crate::resource::Mount>("m").status.options.unwrap();
    assert_eq!(flags.to_string(), "ro");
    ctl(&server, "umount /m --lazy").await.unwrap();
    assert!(server.fixture.gone(Kind::Mount, "m"));
    assert_eq!(fails(&server, "umount /m").await, "no tenant is mounted at /m");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sharing_and_revoking() {
    let server = Server::start().await;
    ctl(&server, "share grant a:/d b --ro --expires 1h --name s").await.unwrap();
    ctl(&server, "share grant a:/d b:/in/d --rw").await.unwrap();
    ctl(&server, "share list --tenant b").await.unwrap();
    assert!(fails(&server, "share revoke a:/d c").await.starts_with("there is no share"));
    ctl(&server, "share revoke a:/d").await.unwrap();
    let (_, shares) = server.fixture.store.list(&[Kind::Share]).unwrap();
    assert_eq!(shares.len(), 2);
    assert!(shares.iter().all(|share| share.common().is("Revoked")));
    assert!(fails(&server, "share revoke a:/d").await.starts_with("there is no share"));
    ctl(&server, "share revoke s").await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrading_revoking_hard_and_dropping() {
    let server = Server::start().await;
    assert!(fails(&server, "tenant upgrade a").await.starts_with("the tenant is not mounted"));
    ctl(&server, "tenant upgrade --all").await.unwrap();
    ctl(&server, "mount a /m").await.unwrap();
    ctl(&server, "mount b /n").await.unwrap();
    server.fixture.calls();
    ctl(&server, "tenant upgrade a").await.unwrap();
    ctl(&server, "tenant upgrade --all").await.unwrap();
    assert_eq!(server.fixture.calls(), ["upgrade 1", "upgrade 1", "upgrade 2"]);
    *server.fixture.mounts.fails.lock() = Some("other terms".to_owned());
    assert_eq!(fails(&server, "tenant upgrade --all").await, "2 of 2 tenants were not upgraded");

    ctl(&server, "share grant a:/d b --ro --name s").await.unwrap();
    ctl(&server, "share revoke s").await.unwrap();
    ctl(&server, "share revoke a:/d --hard").await.unwrap();
    assert_eq!(server.fixture.object(Kind::Share, "s").status["receipt"]["hard"], true);
    ctl(&server, "share grant a:/d b --ro --name t").await.unwrap();
    ctl(&server, "share drop b:/shares/a/d").await.unwrap();
    assert!(fails(&server, "share drop b:/shares/a/d").await.ends_with("is not the root of a share"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_applied_as_a_whole_and_its_errors_are_told() {
    let server = Server::start().await;
    let file = server.dir.path().join("f.yaml");
    let apply = format!("apply --wait -f {}", file.display());
    std::fs::write(
        &file,
        "kind: Mount\nmetadata: {name: m}\nspec: {tenant: c, dir: /m}\n---\n\
         kind: Tenant\nmetadata: {name: c}\nspec: {quota: {bytes: 1GiB}}\n",
    )
    .unwrap();
    assert_eq!(ctl(&server, &apply).await.unwrap(), format!("{:?}", std::process::ExitCode::SUCCESS));
    assert!(server.fixture.object(Kind::Mount, "m").is_ready(), "it waited for its tenant");
    let bad = json!([
        {"kind": "Tenant", "metadata": {"name": "X"}},
        {"kind": "Tenant", "metadata": {"name": "d"}},
    ]);
    std::fs::write(&file, bad.to_string()).unwrap();
    assert_eq!(ctl(&server, &apply).await.unwrap(), format!("{:?}", std::process::ExitCode::FAILURE));
    assert!(!server.fixture.gone(Kind::Tenant, "d"));
    assert_eq!(ctl(&server, "check a").await.unwrap(), format!("{:?}", std::process::ExitCode::FAILURE));
    assert_eq!(ctl(&server, "check").await.unwrap(), format!("{:?}", std::process::ExitCode::SUCCESS));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends() {
    let server = Server::start().await;
    let pool = server.dir.path().join("pool");
    server.fixture.apply(Kind::Pool, "late", json!({"posix": {"path": pool.join("late")}}));
    let late = ctl(&server, "--timeout 1s tenant create c --pool late").await.unwrap_err();
    assert!(late.message.starts_with("the tenant 'c' is not ready: the pool 'late' is not ready"), "{late}");
    assert!(late.hint.unwrap().contains("vmdsctl get tenant c"));
    assert!(!server.fixture.gone(Kind::Tenant, "c"), "it may still come about");
    server.stop().await;
}

//! `vmdsctl share`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::args::ShareCommand;
use super::client::{encoded, resource_path};
use super::typed::{Expiry, Receiver, TenantPath, parse_tenant_path};
use super::{CliError, Run, output, wait};
use crate::api::{DropView, List};
use crate::resource::{Kind, Manifest, Object, Resource, Share, ShareReceipt, generated_share_name};

pub(super) async fn execute(run: &Run, command: ShareCommand) -> Result<(), CliError> {
    match command {
        ShareCommand::Grant { from, to, rw, expires, lease_seconds, name, .. } => {
            let mut spec = spec(&from, &to, rw, expires, SystemTime::now())?;
            if let Some(seconds) = lease_seconds {
                spec["leaseSeconds"] = json!(seconds);
            }
            let name = name.unwrap_or_else(|| generated_share_name(&from.tenant, &from.path, random()));
            grant(run, &name, spec).await
        }
        ShareCommand::Revoke { what, to, hard } => revoke(run, &what, to.as_deref(), hard).await,
        ShareCommand::Drop { at } => drop_share(run, &at).await,
        ShareCommand::List { tenant } => list(run, tenant.as_deref()).await,
    }
}

/// Tells apart shares of the same thing. Not a secret.
fn random() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

fn spec(
    from: &TenantPath,
    to: &Receiver,
    writable: bool,
    expires: Option<Expiry>,
    now: SystemTime,
) -> Result<Value, CliError> {
    let mut spec = json!({
        "from": {"tenant": from.tenant, "path": from.path},
        "to": {"tenant": to.tenant},
        "rights": if writable { "readWrite" } else { "readOnly" },
    });
    if let Some(path) = &to.path {
        spec["to"]["path"] = json!(path);
    }
    if let Some(expiry) = expires {
        let too_far = || CliError::new("a share cannot end that late; leave out --expires");
        spec["expires"] = json!(expiry.seen_from(now).ok_or_else(too_far)?);
    }
    Ok(spec)
}

async fn grant(run: &Run, name: &str, spec: Value) -> Result<(), CliError> {
    let made = wait::make(run, &Manifest::new(Kind::Share, name, spec)).await?;
    let share = typed(&made)?;
    output::show(run.format, &made, || {
        let (from, to) = (&share.spec.from, &share.spec.to.tenant);
        let path = share.status.path.as_deref().unwrap_or("?");
        let until = share.spec.expires.map(|at| format!(" until {at}")).unwrap_or_default();
        format!("shared {}:{} as {to}:{path}{until}; name: {name}\n", from.tenant, from.path)
    })
}

fn typed(object: &Object) -> Result<Resource<Share>, CliError> {
    object.typed().map_err(|error| CliError::new(error.to_string()))
}

async fn shares(run: &Run) -> Result<List, CliError> {
    run.client.get("/v1/shares").await
}

async fn list(run: &Run, tenant: Option<&str>) -> Result<(), CliError> {
    let mut list = shares(run).await?;
    list.items.retain(|object| {
        let of = |side: &str| object.spec[side]["tenant"].as_str();
        tenant.is_none_or(|tenant| of("from") == Some(tenant) || of("to") == Some(tenant))
    });
    output::show(run.format, &list, || output::resources(Kind::Share, &list.items))
}

async fn revoke(run: &Run, what: &str, to: Option<&str>, hard: bool) -> Result<(), CliError> {
    let meant = if what.contains(':') {
        let from = parse_tenant_path(what)
            .map_err(|hint| CliError::new(format!("'{what}' is not a share")).hint(hint))?;
        meant(shares(run).await?.items, &from, to, hard)
    } else {
        let object: Object = run.client.get(&resource_path(Kind::Share, what)).await?;
        vec![object]
            .into_iter()
            .filter(|object| to.is_none_or(|to| object.spec["to"]["tenant"] == to))
            .collect()
    };
    if meant.is_empty() {
        return Err(CliError::new(format!("there is no share '{what}' that could be revoked"))
            .hint("see: vmdsctl share list"));
    }
    let mut revoked = Vec::new();
    for object in &meant {
        revoked.push(revoke_one(run, object, hard).await?);
    }
    output::show(run.format, &revoked, || revoked.iter().map(told).collect())
}

/// The shares of a path that have not ended, to one tenant or to all. What has ended softly can still end hard.
fn meant(all: Vec<Object>, from: &TenantPath, to: Option<&str>, hard: bool) -> Vec<Object> {
    let same_path = |path: &str| {
        path.split('/').filter(|s| !s.is_empty()).eq(from.path.split('/').filter(|s| !s.is_empty()))
    };
    let fits = |object: &Object| {
        typed(object).is_ok_and(|share| {
            share.spec.from.tenant == from.tenant
                && same_path(&share.spec.from.path)
                && to.is_none_or(|to| share.spec.to.tenant == to)
                && share.status.receipt.as_ref().is_none_or(|receipt| hard && !receipt.hard)
        })
    };
    all.into_iter().filter(fits).collect()
}

async fn revoke_one(run: &Run, object: &Object, hard: bool) -> Result<Object, CliError> {
    let mut spec = object.spec.clone();
    spec["revoked"] = json!(true);
    if hard {
        spec["hardRevoke"] = json!(true);
    }
    // Nothing else of a share can change in a way that revoking would undo: no version is expected.
    let manifest = Manifest::new(Kind::Share, object.name(), spec);
    let (_, going) = run.client.put(Kind::Share, object.name(), &manifest).await?;
    wait::until(run, &going, |object| wait::reached(object, "Revoked")).await
}

/// What revoking did, and what it could not do.
fn told(object: &Object) -> String {
    let receipt = typed(object).ok().and_then(|share| share.status.receipt);
    let mut text = format!("revoked {}\n", object.name());
    if let Some(receipt) = receipt {
        text += &receipt_told(&receipt);
    }
    text
}

fn receipt_told(receipt: &ShareReceipt) -> String {
    let some =
        |n: u32, one: &str, many: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {many}") };
    let mut text = format!("  nothing more can be opened through it since {}\n", receipt.at);
    let closed = some(receipt.mounts_dropped, "mount closed what it", "mounts closed what they");
    text += &format!("  {closed} had open through it");
    text += if receipt.hard || receipt.mounts_dropped == 0 {
        "\n"
    } else {
        "; a process that was taken over could still hold descriptors: use --hard to replace it\n"
    };
    if receipt.hard {
        let replaced = some(receipt.processes_replaced, "process was", "processes were");
        text += &format!("  {replaced} replaced; no descriptor survives\n");
    }
    if !receipt.mounts_unreached.is_empty() {
        let names = output::harmless(&receipt.mounts_unreached.join(", "));
        text += &format!("  not reached (refused at their next request): {names}\n");
    }
    if let Some(end) = receipt.last_lease_ends {
        text += &format!("  files already open through it may be read until {end}\n");
    }
    text
}

async fn drop_share(run: &Run, at: &TenantPath) -> Result<(), CliError> {
    let tenant = resource_path(Kind::Tenant, &at.tenant);
    let path = format!("{tenant}/drop?path={}", encoded(&at.path));
    let dropped: DropView = run.client.post(&path, &Value::Null, run.timeout).await?;
    output::show(run.format, &dropped, || {
        let DropView { tenant, path, mounts_dropped } = &dropped;
        let mounts =
            if *mounts_dropped == 1 { "1 mount".to_owned() } else { format!("{mounts_dropped} mounts") };
        format!("dropped {tenant}:{path}; {mounts} forgot it\n")
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resource::Time;

    fn object(name: &str, path: &str, to: &str, revoked: bool) -> Object {
        let receipt = revoked.then(|| json!({"at": "2031-05-07T12:00:00Z", "mountsDropped": 1}));
        serde_json::from_value(json!({
            "apiVersion": "vmds/v1", "kind": "Share",
            "metadata": {"name": name, "uid": 1, "resourceVersion": 4, "generation": 1, "createdBy": 0,
                "created": "2031-05-07T12:00:00Z"},
            "spec": {"from": {"tenant": "a", "path": path}, "to": {"tenant": to}, "rights": "readOnly"},
            "status": {"shareId": 1, "receipt": receipt}
        }))
        .unwrap()
    }

    #[test]
    fn a_path_means_its_shares_that_have_not_ended() {
        let all = || {
            vec![
                object("s1", "/d", "b", false),
                object("s2", "/d/", "c", false),
                object("s3", "/d", "b", true),
                object("s4", "/d/e", "b", false),
            ]
        };
        let names = |to: Option<&str>| {
            let from = parse_tenant_path("a:/d").unwrap();
            meant(all(), &from, to, false).iter().map(|o| o.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["s1", "s2"]);
        assert_eq!(names(Some("c")), ["s2"]);
        assert!(names(Some("d")).is_empty());
        let hard = meant(all(), &parse_tenant_path("a:/d").unwrap(), Some("b"), true);
        assert_eq!(hard.iter().map(Object::name).collect::<Vec<_>>(), ["s1", "s3"]);
    }

    #[test]
    fn what_was_typed_is_what_is_wished_for() {
        let from = parse_tenant_path("a:/d").unwrap();
        let to = Receiver { tenant: "b".to_owned(), path: Some("/in".to_owned()) };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let expires = Some(Expiry::In(Duration::from_secs(60)));
        let expected = json!({
            "from": {"tenant": "a", "path": "/d"}, "to": {"tenant": "b", "path": "/in"},
            "rights": "readWrite", "expires": "1970-01-01T00:02:00Z"
        });
        assert_eq!(spec(&from, &to, true, expires, now).unwrap(), expected);
        assert!(spec(&from, &to, true, Some(Expiry::In(Duration::MAX)), now).is_err());
    }

    #[test]
    fn a_receipt_claims_no_more_than_is_true() {
        let at = Time::parse("2031-05-07T12:00:00Z").unwrap();
        let mut receipt = ShareReceipt {
            at,
            mounts_dropped: 1,
            mounts_unreached: Vec::new(),
            last_lease_ends: None,
            hard: false,
            processes_replaced: 0,
        };
        let since = "  nothing more can be opened through it since 2031-05-07T12:00:00Z\n";
        let or_hard =
            "; a process that was taken over could still hold descriptors: use --hard to replace it\n";
        assert_eq!(
            receipt_told(&receipt),
            format!("{since}  1 mount closed what it had open through it{or_hard}")
        );
        receipt.mounts_dropped = 2;
        receipt.mounts_unreached = vec!["/mnt/b".to_owned()];
        receipt.last_lease_ends = Some(at);
        assert_eq!(
            receipt_told(&receipt),
            format!(
                "{since}  2 mounts closed what they had open through it{or_hard}  \
                 not reached (refused at their next request): /mnt/b\n  \
                 files already open through it may be read until 2031-05-07T12:00:00Z\n"
            )
        );
        let hard = ShareReceipt {
            hard: true,
            processes_replaced: 2,
            mounts_unreached: Vec::new(),
            last_lease_ends: None,
            ..receipt
        };
        assert_eq!(
            receipt_told(&hard),
            format!(
                "{since}  2 mounts closed what they had open through it\n  \
                 2 processes were replaced; no descriptor survives\n"
            )
        );
    }
}

//! `Share`: a directory or file of one tenant shown to another.

use address_map::name::LogicalPath;
use serde::{Deserialize, Serialize};

use super::kind::{NAME_MAX as TENANT_NAME_MAX, check_plain_name};
use super::pool::check_lease_seconds;
use super::{Common, Kind, Problem, Reference, Resource, ResourceType, Time};

/// Longest part of a generated name that comes from the path, in bytes.
const BASE_MAX: usize = 20;
/// Longest name, in bytes: room for a tenant's name before it, and more.
const NAME_MAX: usize = TENANT_NAME_MAX + 64;

/// The kind.
#[derive(Debug)]
pub struct Share;

/// What is wanted of a share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShareSpec {
    /// What is shared.
    pub from: ShareFrom,
    /// With whom.
    pub to: ShareTo,
    /// What the other tenant may do.
    pub rights: GrantRights,
    /// Not valid at or after this time. Absent: until revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// For how long, in seconds, an address leads to an object that is given out through it. Absent: as the pool says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
    /// Taken back. Cannot be undone: share again instead.
    #[serde(default)]
    pub revoked: bool,
    /// Taken back together with every process that may still hold descriptors.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hard_revoke: bool,
}

/// What is shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShareFrom {
    /// The owner.
    pub tenant: String,
    /// Its name for it.
    pub path: String,
}

/// With whom something is shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShareTo {
    /// The grantee.
    pub tenant: String,
    /// Its name for it; absent: by its naming rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What a grantee may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GrantRights {
    /// Look and read.
    ReadOnly,
    /// Everything the permission bits allow.
    ReadWrite,
}

/// What a share is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareStatus {
    /// Its number, for ever; given to no other share.
    pub share_id: u64,
    /// The owner's number, once granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<u32>,
    /// The grantee's number, once granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grantee_id: Option<u32>,
    /// Where the grantee sees it, once granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What revoking did, once revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ShareReceipt>,
    /// Observed generation and conditions: `Active`, `Revoked`, `Expired`.
    #[serde(flatten)]
    pub common: Common,
}

/// What revoking reached, and what it could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareReceipt {
    /// When it was taken back; every request since was refused.
    pub at: Time,
    /// Mounts that forgot it.
    pub mounts_dropped: u32,
    /// Mounts that could not be told.
    #[serde(default)]
    pub mounts_unreached: Vec<String>,
    /// When the last address that was given out stops working; absent: none is out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_lease_ends: Option<Time>,
    /// Every process that may have held descriptors was replaced.
    #[serde(default)]
    pub hard: bool,
    /// How many that were.
    #[serde(default)]
    pub processes_replaced: u32,
}

/// The name of a share that nobody named: `<owner>-<base>-<4 hex digits>`.
pub fn generated_share_name(owner: &str, path: &str, random: u16) -> String {
    let base = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("root");
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let base: String = base.chars().map(plain).take(BASE_MAX).collect();
    format!("{owner}-{}-{random:04x}", base.trim_matches('-'))
}

fn check_path(problems: &mut Vec<Problem>, field: &str, path: &str) {
    if let Err(error) = LogicalPath::parse(path.as_bytes()) {
        problems.push(Problem::new(field, format!("'{path}' is not a path of a tenant: {error}")));
    }
}

impl ResourceType for Share {
    const KIND: Kind = Kind::Share;
    const READY: &'static str = "Active";
    const COLUMNS: &'static [&'static str] = &["NAME", "FROM", "TO", "RIGHTS", "EXPIRES"];
    type Spec = ShareSpec;
    type Status = ShareStatus;

    fn born(number: u64) -> Option<ShareStatus> {
        Some(ShareStatus {
            share_id: number,
            owner_id: None,
            grantee_id: None,
            path: None,
            receipt: None,
            common: Common::default(),
        })
    }

    fn common(status: &ShareStatus) -> &Common {
        &status.common
    }

    fn common_mut(status: &mut ShareStatus) -> &mut Common {
        &mut status.common
    }

    fn check(name: &str, spec: &ShareSpec, old: Option<&ShareSpec>) -> Vec<Problem> {
        let mut problems: Vec<Problem> = check_plain_name(name, NAME_MAX).into_iter().collect();
        check_path(&mut problems, "spec.from.path", &spec.from.path);
        if let Some(path) = &spec.to.path {
            check_path(&mut problems, "spec.to.path", path);
            if path.bytes().all(|b| b == b'/') {
                problems.push(Problem::new("spec.to.path", "a share cannot replace the root of a tenant"));
            }
        }
        if spec.from.tenant == spec.to.tenant {
            problems.push(Problem::new("spec.to.tenant", "a tenant cannot share with itself"));
        }
        problems.extend(check_lease_seconds("spec.leaseSeconds", spec.lease_seconds));
        if spec.hard_revoke && !spec.revoked {
            problems.push(Problem::new("spec.hardRevoke", "only what is revoked can be revoked hard"));
        }
        if let Some(old) = old {
            if old.from != spec.from {
                problems
                    .push(Problem::new("spec.from", "what is shared cannot be changed; make another share"));
            }
            if old.to != spec.to {
                problems.push(Problem::new("spec.to", "the receiver cannot be changed; make another share"));
            }
            if old.revoked && !spec.revoked {
                problems.push(Problem::new("spec.revoked", "revoking cannot be undone; make another share"));
            }
        }
        problems
    }

    fn references(spec: &ShareSpec, _status: &ShareStatus) -> Vec<Reference> {
        vec![Reference::new(Kind::Tenant, &spec.from.tenant), Reference::new(Kind::Tenant, &spec.to.tenant)]
    }

    fn row(share: &Resource<Self>) -> Vec<String> {
        let (spec, status) = (&share.spec, &share.status);
        let to_path = status.path.as_ref().or(spec.to.path.as_ref());
        vec![
            share.metadata.name.clone(),
            format!("{}:{}", spec.from.tenant, spec.from.path),
            to_path.map_or_else(|| spec.to.tenant.clone(), |path| format!("{}:{path}", spec.to.tenant)),
            match spec.rights {
                GrantRights::ReadOnly => "ro".to_owned(),
                GrantRights::ReadWrite => "rw".to_owned(),
            },
            spec.expires.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec() -> Value {
        json!({"from": {"tenant": "a", "path": "/data"}, "to": {"tenant": "b"}, "rights": "readOnly"})
    }

    fn problem(new: &Value, old: Option<&Value>) -> String {
        (Kind::Share.info().admit)("s", new, old).map_or_else(|e| e.to_string(), |_| "none".to_owned())
    }

    #[test]
    fn a_share_cannot_become_another_one() {
        let old = spec();
        for (field, value) in
            [("from", json!({"tenant": "a", "path": "/other"})), ("to", json!({"tenant": "c"}))]
        {
            let mut new = spec();
            new[field] = value;
            assert!(problem(&new, Some(&old)).starts_with(&format!("spec.{field}: ")));
        }
        let mut revoked = spec();
        revoked["revoked"] = json!(true);
        assert_eq!(problem(&revoked, Some(&old)), "none");
        assert!(problem(&old, Some(&revoked)).starts_with("spec.revoked: "));
        revoked["hardRevoke"] = json!(true);
        assert_eq!(problem(&revoked, Some(&old)), "none");
        revoked["revoked"] = json!(false);
        assert!(problem(&revoked, Some(&old)).starts_with("spec.hardRevoke: "));
    }

    #[test]
    fn paths_and_tenants_are_checked() {
        for (field, value, expected) in [
            ("from", json!({"tenant": "a", "path": "data"}), "spec.from.path: "),
            ("from", json!({"tenant": "a", "path": "/a/../b"}), "spec.from.path: "),
            ("to", json!({"tenant": "b", "path": "//"}), "spec.to.path: "),
            ("to", json!({"tenant": "a"}), "spec.to.tenant: "),
            ("rights", json!("all"), "spec.rights: "),
            ("expires", json!("soon"), "spec.expires: "),
            ("leaseSeconds", json!(0), "spec.leaseSeconds: "),
            ("leaseSeconds", json!(3601), "spec.leaseSeconds: "),
            ("leaseSeconds", json!(3600), "none"),
        ] {
            let mut new = spec();
            new[field] = value;
            let told = problem(&new, None);
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn generated_names_are_names() {
        assert_eq!(generated_share_name("alpha", "/data/Train Set.csv", 0x2a), "alpha-train-set-csv-002a");
        assert_eq!(generated_share_name("alpha", "/", 0xffff), "alpha-root-ffff");
        let longest = generated_share_name(&"o".repeat(63), &format!("/{}", "n".repeat(255)), 1);
        assert!(check_plain_name(&longest, NAME_MAX).is_none(), "{longest}");
    }
}

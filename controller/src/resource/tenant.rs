//! `Tenant`: the owner of one isolated namespace.

use serde::{Deserialize, Serialize};

use super::kind::{NAME_MAX, check_plain_name};
use super::{ByteSize, Common, Kind, Problem, Reference, Resource, ResourceType, Template, human_bytes};
use crate::placement::pool_for;

/// Most uids that may act for one tenant.
const OWNERS_MAX: usize = 256;

/// Memory that a tenant's VMDS may use, bytes, unless the tenant says otherwise.
pub const MEMORY_DEFAULT: u64 = 256 << 20;
/// Least memory that a VMDS works with, bytes.
pub const MEMORY_MIN: u64 = 16 << 20;

/// The condition that says whether the memory of a tenant's VMDS is bounded.
pub const MEMORY_BOUNDED: &str = "MemoryBounded";
/// The condition that says whether requests to a tenant's mounts are answered.
pub const SERVING: &str = "Serving";

/// The kind.
#[derive(Debug)]
pub struct Tenant;

/// What is wanted of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantSpec {
    /// The pool that new files' bytes go to; absent: chosen by placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// What kind of storage is asked for, where no pool is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sla_class: Option<SlaClass>,
    /// What may be used.
    #[serde(default)]
    pub quota: QuotaSpec,
    /// Memory that its VMDS may use on a node. Caches are sized from it.
    #[serde(default = "default_memory")]
    pub memory: ByteSize,
    /// Where shares from others appear.
    #[serde(default)]
    pub share_naming: Template,
    /// How the namespace is mounted, unless a mount says otherwise.
    #[serde(default)]
    pub mount_options: MountFlags,
    /// The uids that may mount it and share from it. The first one owns its root directory.
    #[serde(default = "operator_only")]
    pub owners: Vec<u32>,
    /// Permission bits of the root directory at creation, octal.
    #[serde(default = "default_root_mode")]
    pub root_mode: String,
}

fn operator_only() -> Vec<u32> {
    vec![0]
}

fn default_memory() -> ByteSize {
    ByteSize(MEMORY_DEFAULT)
}

fn default_root_mode() -> String {
    "0755".to_owned()
}

impl TenantStatus {
    /// New files' bytes go to `pool` from now on; where they went before is not forgotten.
    pub fn use_pool(&mut self, pool: &str) {
        self.former_pools.retain(|former| former != pool);
        let before = self.pool.replace(pool.to_owned());
        self.former_pools.extend(before.filter(|before| before != pool));
    }
}

impl TenantSpec {
    /// [`TenantSpec::root_mode`] as a number.
    ///
    /// # Errors
    /// It is not one; the sentence says so.
    pub fn root_mode_bits(&self) -> Result<u32, String> {
        match u32::from_str_radix(&self.root_mode, 8) {
            Ok(bits) if bits <= 0o7777 => Ok(bits),
            _ => Err(format!("'{}' is not a mode; write it in octal like 0755", self.root_mode)),
        }
    }

    /// Who owns the root directory.
    pub fn root_owner(&self) -> u32 {
        self.owners.first().copied().unwrap_or(0)
    }
}

/// The kind of storage a tenant asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SlaClass {
    /// A pool that others use too.
    Shared,
    /// A pool that nobody else uses.
    Dedicated,
    /// A pool made for data that must be guarded.
    HighSecurity,
}

/// Upper bounds of what a tenant uses. Absent: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaSpec {
    /// Most bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteSize>,
    /// Most inodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
}

/// Flags of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MountFlags {
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// No program can be run from it.
    pub noexec: bool,
    /// Reading leaves no access times.
    pub noatime: bool,
    /// Set-uid bits have their effect.
    pub suid: bool,
    /// Device nodes have their effect.
    pub dev: bool,
}

/// What a tenant is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// Its number, for ever; given to no other tenant.
    pub tenant_id: u32,
    /// The shard of the address map that holds it, once chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u16>,
    /// The pool that new files' bytes go to, once chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Pools that older files' bytes may still be in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_pools: Vec<String>,
    /// What it used when last looked at.
    #[serde(default)]
    pub usage: UsageStatus,
    /// Observed generation and conditions: `Ready`, `Serving`, `MemoryBounded`.
    #[serde(flatten)]
    pub common: Common,
}

/// What a tenant uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageStatus {
    /// Bytes of all files.
    pub bytes: u64,
    /// Inodes, the root included.
    pub inodes: u64,
}

impl ResourceType for Tenant {
    const KIND: Kind = Kind::Tenant;
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "POOL", "USED", "QUOTA", "INODES"];
    type Spec = TenantSpec;
    type Status = TenantStatus;

    fn born(number: u64) -> Option<TenantStatus> {
        Some(TenantStatus {
            tenant_id: u32::try_from(number).ok()?,
            shard: None,
            pool: None,
            former_pools: Vec::new(),
            usage: UsageStatus::default(),
            common: Common::default(),
        })
    }

    fn restarted(status: &mut TenantStatus) {
        status.common.forget_after_restart(Self::READY);
        status.common.forget_after_restart(SERVING);
        status.common.forget_after_restart(MEMORY_BOUNDED);
    }

    fn common(status: &TenantStatus) -> &Common {
        &status.common
    }

    fn common_mut(status: &mut TenantStatus) -> &mut Common {
        &mut status.common
    }

    fn check(name: &str, spec: &TenantSpec, _old: Option<&TenantSpec>) -> Vec<Problem> {
        let mut problems: Vec<Problem> = check_plain_name(name, NAME_MAX).into_iter().collect();
        if spec.pool.is_some() && spec.sla_class.is_some() {
            problems.push(Problem::new("spec.slaClass", "give either a pool or a class, not both"));
        }
        if spec.owners.is_empty() || spec.owners.len() > OWNERS_MAX {
            problems.push(Problem::new("spec.owners", format!("give 1 to {OWNERS_MAX} uids")));
        }
        if let Err(sentence) = spec.root_mode_bits() {
            problems.push(Problem::new("spec.rootMode", sentence));
        }
        if spec.memory.0 < MEMORY_MIN {
            let least = human_bytes(MEMORY_MIN);
            problems.push(Problem::new("spec.memory", format!("a VMDS needs at least {least}")));
        }
        if spec.quota.inodes == Some(0) {
            problems.push(Problem::new("spec.quota.inodes", "the root directory needs one inode"));
        }
        problems
    }

    fn references(spec: &TenantSpec, status: &TenantStatus) -> Vec<Reference> {
        let mut pools = vec![pool_for(spec.pool.as_deref(), status.pool.as_deref())];
        for older in status.pool.iter().chain(&status.former_pools) {
            if !pools.contains(&older.as_str()) {
                pools.push(older);
            }
        }
        pools.into_iter().map(|pool| Reference::new(Kind::Pool, pool)).collect()
    }

    fn row(tenant: &Resource<Self>) -> Vec<String> {
        let (spec, status) = (&tenant.spec, &tenant.status);
        vec![
            tenant.metadata.name.clone(),
            status.tenant_id.to_string(),
            status.pool.clone().unwrap_or_else(|| "-".to_owned()),
            human_bytes(status.usage.bytes),
            spec.quota.bytes.map_or_else(|| "-".to_owned(), |b| b.to_string()),
            match spec.quota.inodes {
                Some(most) => format!("{}/{most}", status.usage.inodes),
                None => status.usage.inodes.to_string(),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn admit(name: &str, spec: serde_json::Value) -> Result<serde_json::Value, String> {
        (Kind::Tenant.info().admit)(name, &spec, None).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_spec_is_filled_in() {
        let full = admit("alpha", json!(null)).unwrap();
        assert_eq!(full["shareNaming"], "/shares/{owner}/{name}");
        assert_eq!(full["owners"], json!([0]));
        assert_eq!(full["rootMode"], "0755");
        assert_eq!(full["memory"], 256 << 20);
        assert_eq!(
            admit("alpha", json!({"quota": {"bytes": "10GiB"}})).unwrap()["quota"]["bytes"],
            10u64 << 30
        );
    }

    #[test]
    fn errors_name_the_field() {
        for (spec, field) in [
            (json!({"quota": {"bytes": "ten"}}), "spec.quota.bytes: "),
            (json!({"quota": {"byte": 1}}), "spec.quota.byte: unknown field"),
            (json!({"rootMode": "9"}), "spec.rootMode: "),
            (json!({"memory": "15MiB"}), "spec.memory: "),
            (json!({"owners": []}), "spec.owners: "),
            (json!({"owners": [1, -1]}), "spec.owners[1]: "),
            (json!({"shareNaming": "/{x}"}), "spec.shareNaming: unknown placeholder"),
            (json!({"pool": "p", "slaClass": "shared"}), "spec.slaClass: "),
            (json!("text"), "spec: "),
        ] {
            let error = admit("alpha", spec).unwrap_err();
            assert!(error.starts_with(field), "{error}");
        }
        for name in ["", "Alpha", "a/b", "a.b", "-a", &"a".repeat(64)] {
            assert!(admit(name, json!({})).unwrap_err().starts_with("metadata.name: "), "{name}");
        }
    }

    #[test]
    fn all_problems_are_told_together() {
        let error = admit("A", json!({"owners": [], "rootMode": "x"})).unwrap_err();
        for field in ["metadata.name: ", "spec.owners: ", "spec.rootMode: "] {
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn tenants_need_all_pools_their_files_may_be_in() {
        let pools = |spec: serde_json::Value, status: &TenantStatus| {
            let spec: TenantSpec = serde_json::from_value(spec).unwrap();
            Tenant::references(&spec, status).into_iter().map(|r| r.name).collect::<Vec<_>>()
        };
        let mut status = Tenant::born(1).unwrap();
        assert_eq!(pools(json!({}), &status), ["default"]);
        status.use_pool("one");
        assert_eq!(pools(json!({}), &status), ["one"]);
        assert_eq!(pools(json!({"pool": "two"}), &status), ["two", "one"]);
        status.use_pool("two");
        status.use_pool("three");
        status.use_pool("two");
        assert_eq!(pools(json!({"pool": "two"}), &status), ["two", "one", "three"]);
    }
}

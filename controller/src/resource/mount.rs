//! `Mount`: a tenant's namespace mounted at a directory. Its name follows from the directory.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pool::is_plain_absolute;
use super::{ByteSize, Common, Kind, MountFlags, Problem, Reference, Resource, ResourceType, Time};

/// Longest path of a mount point, in bytes: its name in the store is at most three times as long.
const DIR_MAX: usize = 1024;

/// The kind.
#[derive(Debug)]
pub struct Mount;

/// What is wanted of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MountSpec {
    /// Whose namespace.
    pub tenant: String,
    /// Where: an existing directory.
    pub dir: PathBuf,
    /// Nothing can be changed through it. This and the flags below replace the tenant's where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// No program can be run from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noexec: Option<bool>,
    /// Reading leaves no access times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noatime: Option<bool>,
    /// Set-uid bits have their effect. Only for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suid: Option<bool>,
    /// Device nodes have their effect. Only for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<bool>,
}

impl MountSpec {
    /// A mount of `tenant` at `dir`, with the tenant's own flags.
    pub fn new(tenant: &str, dir: &Path) -> Self {
        let (tenant, dir) = (tenant.to_owned(), dir.to_owned());
        Self { tenant, dir, read_only: None, noexec: None, noatime: None, suid: None, dev: None }
    }

    /// The flags of a mount that `created_by` made of a tenant with the flags `tenant`.
    ///
    /// Set-uid programs and device nodes never work on a mount that was not made by the operator.
    pub fn effective(&self, tenant: &MountFlags, created_by: u32) -> MountFlags {
        let operator = created_by == 0;
        MountFlags {
            read_only: self.read_only.unwrap_or(tenant.read_only),
            noexec: self.noexec.unwrap_or(tenant.noexec),
            noatime: self.noatime.unwrap_or(tenant.noatime),
            suid: operator && self.suid.unwrap_or(tenant.suid),
            dev: operator && self.dev.unwrap_or(tenant.dev),
        }
    }
}

/// What a mount is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountStatus {
    /// Requests are being answered.
    #[serde(default)]
    pub serving: bool,
    /// The process that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How many processes have answered on this mount so far.
    #[serde(default)]
    pub vmds_generation: u32,
    /// Since when this process does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The flags it was mounted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<MountFlags>,
    /// It is older than the controller, which has taken it over from one before.
    #[serde(default)]
    pub taken_over: bool,
    /// Its writes are charged to a quota of bytes.
    #[serde(default)]
    pub metered: bool,
    /// Memory that its VMDS may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Observed generation and conditions: `Ready`.
    #[serde(flatten)]
    pub common: Common,
}

/// The name of the mount at `dir`: `/` becomes `-`, letters, digits and `.` stay, all else becomes `_` and two
/// hexadecimal digits. Different directories have different names.
pub fn mount_name(dir: &Path) -> String {
    let bytes = dir.as_os_str().as_bytes();
    let mut name = String::with_capacity(bytes.len());
    for &byte in bytes.strip_prefix(b"/").unwrap_or(bytes) {
        match byte {
            b'/' => name.push('-'),
            b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(byte as char),
            other => name.push_str(&format!("_{other:02x}")),
        }
    }
    name
}

impl ResourceType for Mount {
    const KIND: Kind = Kind::Mount;
    const COLUMNS: &'static [&'static str] = &["DIR", "TENANT", "OPTIONS", "SERVING", "PID", "GENERATION"];
    type Spec = MountSpec;
    type Status = MountStatus;

    fn born(_number: u64) -> Option<MountStatus> {
        Some(MountStatus::default())
    }

    fn restarted(status: &mut MountStatus) {
        (status.serving, status.pid, status.since) = (false, None, None);
        status.common.forget_after_restart(Self::READY);
    }

    fn common(status: &MountStatus) -> &Common {
        &status.common
    }

    fn common_mut(status: &mut MountStatus) -> &mut Common {
        &mut status.common
    }

    fn check(name: &str, spec: &MountSpec, old: Option<&MountSpec>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let dir = &spec.dir;
        let plain: PathBuf = dir.components().collect();
        if !is_plain_absolute(dir) || plain.as_os_str() != dir.as_os_str() || dir == Path::new("/") {
            let sentence =
                "give the full path of a directory: not '/', no '..', no '.', no doubled or trailing '/'";
            problems.push(Problem::new("spec.dir", sentence));
        } else if dir.as_os_str().len() > DIR_MAX {
            problems.push(Problem::new("spec.dir", format!("a mount point has at most {DIR_MAX} bytes")));
        } else if mount_name(dir) != name {
            let sentence = format!("the mount at {} is called '{}'", dir.display(), mount_name(dir));
            problems.push(Problem::new("metadata.name", sentence));
        }
        if old.is_some_and(|old| old.tenant != spec.tenant) {
            let sentence = "another tenant's namespace is another mount; unmount this one first";
            problems.push(Problem::new("spec.tenant", sentence));
        }
        problems
    }

    fn references(spec: &MountSpec, _status: &MountStatus) -> Vec<Reference> {
        vec![Reference::new(Kind::Tenant, &spec.tenant)]
    }

    fn row(mount: &Resource<Self>) -> Vec<String> {
        let status = &mount.status;
        vec![
            mount.spec.dir.display().to_string(),
            mount.spec.tenant.clone(),
            status.options.map_or_else(|| "-".to_owned(), |options| options.to_string()),
            if status.serving { "yes" } else { "no" }.to_owned(),
            status.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            status.vmds_generation.to_string(),
        ]
    }
}

impl std::fmt::Display for MountFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.read_only { "ro" } else { "rw" })?;
        for (set, word) in
            [(self.noexec, ",noexec"), (self.noatime, ",noatime"), (self.suid, ",suid"), (self.dev, ",dev")]
        {
            if set {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn different_directories_have_different_names() {
        let dirs = ["/mnt/a", "/mnt-a", "/mnt_a", "/mnt/a b", "/mnt/a_20b", "/mnt/A.d"];
        let names: std::collections::BTreeSet<_> =
            dirs.iter().map(|dir| mount_name(Path::new(dir))).collect();
        assert_eq!(names.len(), dirs.len());
        assert_eq!(mount_name(Path::new("/mnt/a-b")), "mnt-a_2db");
    }

    #[test]
    fn a_mount_is_checked() {
        let admit = Kind::Mount.info().admit;
        let spec = |dir: &str| json!({"tenant": "a", "dir": dir, "readOnly": true});
        let full = admit("mnt-a", &spec("/mnt/a"), None).unwrap();
        assert_eq!(full, spec("/mnt/a"));
        for dir in ["/", "mnt", "/mnt/../etc", "/mnt//a", "/mnt/a/", "/mnt/./a"] {
            assert_eq!(admit("x", &spec(dir), None).unwrap_err().0[0].field, "spec.dir", "{dir}");
        }
        assert_eq!(admit("other", &spec("/mnt/a"), None).unwrap_err().0[0].field, "metadata.name");
        let unknown =
            admit("mnt-a", &json!({"tenant": "a", "dir": "/mnt/a", "readonly": true}), None).unwrap_err();
        assert!(unknown.to_string().contains("readonly"), "{unknown}");
        let other = json!({"tenant": "b", "dir": "/mnt/a"});
        assert_eq!(admit("mnt-a", &other, Some(&full)).unwrap_err().0[0].field, "spec.tenant");
    }

    #[test]
    fn only_the_operator_gets_suid_and_devices() {
        let tenant = MountFlags { suid: true, noexec: true, ..MountFlags::default() };
        let spec =
            MountSpec { noexec: Some(false), dev: Some(true), ..MountSpec::new("a", Path::new("/mnt")) };
        assert_eq!(spec.effective(&tenant, 0).to_string(), "rw,suid,dev");
        assert_eq!(spec.effective(&tenant, 1000).to_string(), "rw");
    }
}

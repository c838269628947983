//! Options of a mount as `mount(8)` and `/etc/fstab` write them: words between commas.

use std::path::PathBuf;

use serde_json::{Value, json};

/// What the options of a mount say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    /// Fields of a mount's spec that are said, with their values.
    flags: Vec<(&'static str, bool)>,
    /// The mount is there already, its options are to be changed.
    pub remount: bool,
    /// Where the controller's socket is.
    pub run_dir: Option<PathBuf>,
}

/// Options that are for others to see (`mount(8)`, `systemd`, the boot), or that every mount has anyway.
const FOR_OTHERS: [&str; 27] = [
    "",
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "async",
    "relatime",
    "norelatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "nomand",
    "noiversion",
    "silent",
    "loud",
    "default_permissions",
    "allow_other",
    "symfollow",
];
/// The same, with a value.
const FOR_OTHERS_WITH_VALUE: [&str; 10] =
    ["comment=", "x-", "X-", "user=", "fsname=", "subtype=", "user_id=", "group_id=", "max_read=", "helper="];

impl MountOptions {
    /// Takes a list apart; later words win over earlier ones.
    ///
    /// # Errors
    /// The first word that no mount has, unless `sloppy`.
    pub(super) fn parse(list: &str, sloppy: bool) -> Result<Self, String> {
        let mut options = Self::default();
        for word in list.split(',') {
            if !options.take(word) && !sloppy {
                return Err(format!("a VMDS mount has no option '{word}'"));
            }
        }
        Ok(options)
    }

    /// Takes the list apart that `mount(8)` hands to a helper: what is its own default (`rw`, `exec`, `atime`, `suid`,
    /// `dev`) is not in it, save `rw`, which always is if `ro` is not.
    ///
    /// # Errors
    /// As of [`MountOptions::parse`].
    pub(super) fn from_mount_8(list: &str, sloppy: bool) -> Result<Self, String> {
        let mut options = Self::parse(list, sloppy)?;
        if options.remount {
            for field in ["readOnly", "noexec", "noatime"] {
                if !options.flags.iter().any(|(known, _)| *known == field) {
                    options.flags.push((field, false));
                }
            }
        } else {
            options.flags.retain(|flag| *flag != ("readOnly", false));
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> bool {
        let (field, value) = match word {
            "ro" => ("readOnly", true),
            "rw" => ("readOnly", false),
            "noexec" => ("noexec", true),
            "exec" => ("noexec", false),
            "noatime" => ("noatime", true),
            "atime" => ("noatime", false),
            // `mount(8)` keeps `suid` and `dev` to itself.
            "suid" | "allow_suid" => ("suid", true),
            "nosuid" => ("suid", false),
            "dev" | "allow_dev" => ("dev", true),
            "nodev" => ("dev", false),
            "remount" => {
                self.remount = true;
                return true;
            }
            other => {
                if let Some(dir) = other.strip_prefix("run_dir=") {
                    self.run_dir = Some(dir.into());
                    return true;
                }
                return FOR_OTHERS.contains(&other)
                    || FOR_OTHERS_WITH_VALUE.iter().any(|prefix| other.starts_with(prefix));
            }
        };
        self.flags.retain(|(known, _)| *known != field);
        self.flags.push((field, value));
        true
    }

    /// Writes what is said into a mount's spec; what is not said stays.
    pub(super) fn write_to(&self, spec: &mut Value) {
        for (field, value) in &self.flags {
            spec[*field] = json!(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(list: &str) -> Value {
        let mut spec = json!({"tenant": "a"});
        MountOptions::parse(list, false).unwrap().write_to(&mut spec);
        spec
    }

    #[test]
    fn options_of_fstab_are_understood() {
        let lines = "defaults,ro,noexec,nofail,_netdev,x-systemd.requires=vmds-controller.service,comment=x";
        assert_eq!(spec(lines), json!({"tenant": "a", "readOnly": true, "noexec": true}));
        assert_eq!(spec("ro,suid,rw,nosuid"), json!({"tenant": "a", "readOnly": false, "suid": false}));
        // What `mount(8)` adds when it changes the options of a mount.
        let shown =
            "rw,nosuid,nodev,relatime,user_id=0,group_id=0,default_permissions,allow_other,remount,ro";
        let options = MountOptions::parse(shown, false).unwrap();
        assert!(options.remount);
        assert_eq!(spec(shown)["readOnly"], true);
        let options = MountOptions::parse("run_dir=/run/other", false).unwrap();
        assert_eq!(options.run_dir, Some("/run/other".into()));
    }

    #[test]
    fn what_mount_8_leaves_out_is_its_default() {
        let spec = |list: &str| {
            let mut spec = json!({"suid": true});
            MountOptions::from_mount_8(list, false).unwrap().write_to(&mut spec);
            spec
        };
        assert_eq!(spec("rw,noexec"), json!({"suid": true, "noexec": true}));
        assert_eq!(spec("ro,nosuid,allow_dev"), json!({"readOnly": true, "suid": false, "dev": true}));
        let all = json!({"suid": true, "readOnly": false, "noexec": false, "noatime": true});
        assert_eq!(spec("rw,noatime,remount"), all);
    }

    #[test]
    fn what_no_mount_has_is_refused() {
        for word in ["strictatime", "sync", "uid=3", "loop", "run_dirs"] {
            let refused = MountOptions::parse(&format!("ro,{word}"), false).unwrap_err();
            assert!(refused.contains(word), "{refused}");
            assert!(MountOptions::parse(word, true).is_ok(), "sloppy");
        }
    }
}

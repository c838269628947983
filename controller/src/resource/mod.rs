//! Declarative resources: what is wanted (`spec`) and what is (`status`).
//!
//! A kind is one file here and one line in `kinds!`. Everything generic (store, watch, API, `vmdsctl get`) works
//! on [`Object`], whose spec and status are JSON; everything specific works on [`Resource`], which is typed.
//! Nothing here talks to a service or the store.

mod condition;
mod kind;
mod meta;
mod mount;
mod object;
mod pool;
mod quantity;
mod share;
mod template;
mod tenant;
mod time;

pub use condition::{Common, Condition, Truth};
pub(crate) use kind::to_value;
pub use kind::{Invalid, KindInfo, Problem, Reference, ResourceType};
pub use meta::{Manifest, ManifestMeta, Metadata};
pub use mount::{Mount, MountSpec, MountStatus, mount_name};
pub use object::{ApiVersion, DecodeError, Object, Resource};
pub use pool::{
    CredentialsSpec, DiskCacheSpec, DiskCacheStatus, EtagForm, Pool, PoolSpec, PoolStatus, PosixSpec,
    S3Capabilities, S3Spec, Versioning,
};
pub use quantity::{ByteSize, human_bytes};
pub use share::{
    GrantRights, Share, ShareFrom, ShareReceipt, ShareSpec, ShareStatus, ShareTo, generated_share_name,
};
pub use template::{Template, TemplateError};
pub use tenant::{
    MEMORY_BOUNDED, MEMORY_DEFAULT, MEMORY_MIN, MountFlags, QuotaSpec, SERVING, SlaClass, Tenant, TenantSpec,
    TenantStatus, UsageStatus,
};
pub use time::Time;

/// Declares the kinds: the variant of [`Kind`], its plural in URLs, and the type that describes it.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $plural:literal, $described_by:ty;)*) => {
        /// What a resource is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),*];

            /// How resources of this kind are named, checked and shown.
            pub fn info(self) -> &'static KindInfo {
                match self {
                    $(Kind::$kind => const { &KindInfo::of::<$described_by>(stringify!($kind), $plural) },)*
                }
            }
        }
    };
}

kinds! {
    /// Storage that tenants' bytes live in.
    Pool, "pools", pool::Pool;
    /// The owner of one isolated namespace.
    Tenant, "tenants", tenant::Tenant;
    /// A directory or file of one tenant shown to another.
    Share, "shares", share::Share;
    /// A tenant's namespace mounted at a directory.
    Mount, "mounts", mount::Mount;
}

impl Kind {
    /// The kind called `word`: its name or plural, in any case.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| {
            let info = kind.info();
            info.singular.eq_ignore_ascii_case(word) || info.plural.eq_ignore_ascii_case(word)
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.info().singular.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_either_name() {
        assert_eq!(Kind::parse("tenants"), Some(Kind::Tenant));
        assert_eq!(Kind::parse("Mount"), Some(Kind::Mount));
        assert_eq!(Kind::parse("secret"), None);
        assert_eq!(Kind::Share.to_string(), "share");
    }
}

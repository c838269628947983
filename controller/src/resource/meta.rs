//! What every resource has beside spec and status, and what a client may send.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ApiVersion, Kind, Time};

/// Identity and history of a resource. Kept by the store; clients choose only the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Unique among the resources of its kind.
    pub name: String,
    /// Unique for ever: a resource deleted and made again has another one.
    pub uid: u64,
    /// The version of the store in which the resource last changed.
    pub resource_version: u64,
    /// Grows with every change of the spec, from 1.
    pub generation: u64,
    /// When it was made.
    pub created: Time,
    /// The uid of the user who made it; 0 is the operator.
    pub created_by: u32,
    /// Somebody asked for it to go away; its reconciler does the work and then forgets it.
    #[serde(default)]
    pub deletion_requested: bool,
    /// The deletion shall not be stopped by what it destroys: a tenant's data, a mount in use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletion_forced: bool,
}

/// What a client sends: a resource of which only name and spec matter, so that what was read can be sent back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// `vmds/v1`, or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<ApiVersion>,
    /// Its kind; may be absent where the URL says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Its name and the expected version.
    #[serde(default)]
    pub metadata: ManifestMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: Value,
    /// Ignored: status is observed, never wished for.
    #[serde(default, skip_serializing)]
    pub status: Value,
}

/// The metadata of a [`Manifest`]. Fields that the store keeps are accepted and ignored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestMeta {
    /// The name; may be absent where the URL says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Given: the change is refused unless the resource is at this version (0: unless it does not exist).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<u64>,
}

impl Manifest {
    /// A manifest for `name` with no expectation about versions.
    pub fn new(kind: Kind, name: &str, spec: Value) -> Self {
        Self {
            api_version: Some(ApiVersion::V1),
            kind: Some(kind),
            metadata: ManifestMeta { name: Some(name.to_owned()), resource_version: None },
            spec,
            status: Value::Null,
        }
    }

    /// The same, expected to be at `version`.
    pub fn at_version(mut self, version: u64) -> Self {
        self.metadata.resource_version = Some(version);
        self
    }
}

//! A resource, generic ([`Object`]) and typed ([`Resource`]).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{Common, Condition, Kind, Metadata, ResourceType, Truth};

/// The version of the resources' format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVersion {
    /// `vmds/v1`.
    #[serde(rename = "vmds/v1")]
    V1,
}

/// A stored resource whose spec or status its kind does not understand.
#[derive(Debug, Error)]
#[error("the stored {kind} '{name}' is not understood")]
pub struct DecodeError {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
    /// What was wrong.
    #[source]
    pub source: serde_json::Error,
}

/// A resource of any kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The format.
    pub api_version: ApiVersion,
    /// What it is.
    pub kind: Kind,
    /// Identity and history.
    pub metadata: Metadata,
    /// What is wanted, as its kind wrote it.
    pub spec: Value,
    /// What is, as its reconciler wrote it.
    #[serde(default)]
    pub status: Value,
}

impl Object {
    /// The name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The part of the status that every kind has.
    pub fn common(&self) -> Common {
        Common::deserialize(&self.status).unwrap_or_default()
    }

    /// The condition that says whether the resource is what it should be.
    pub fn readiness(&self) -> Option<Condition> {
        self.common().condition(self.kind.info().ready).cloned()
    }

    /// Whether it is what it should be.
    pub fn is_ready(&self) -> bool {
        self.readiness().is_some_and(|c| c.status == Truth::True)
    }

    /// The resource with spec and status of its type.
    ///
    /// # Errors
    /// The stored form is not that of `T`.
    pub fn typed<T: ResourceType>(&self) -> Result<Resource<T>, DecodeError> {
        let wrong = |source| DecodeError { kind: self.kind, name: self.metadata.name.clone(), source };
        Ok(Resource {
            metadata: self.metadata.clone(),
            spec: T::Spec::deserialize(&self.spec).map_err(wrong)?,
            status: T::Status::deserialize(&self.status).map_err(wrong)?,
        })
    }
}

/// A resource of a known kind.
#[derive(Debug)]
pub struct Resource<T: ResourceType> {
    /// Identity and history.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: T::Spec,
    /// What is.
    pub status: T::Status,
}

impl<T: ResourceType> Clone for Resource<T> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), spec: self.spec.clone(), status: self.status.clone() }
    }
}

impl<T: ResourceType> Resource<T> {
    /// The name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Whether it is what it should be.
    pub fn is_ready(&self) -> bool {
        T::common(&self.status).is(T::READY)
    }
}

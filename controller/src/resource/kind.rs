//! What a kind of resource has to say about itself, and the same behind function pointers for generic code.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{Common, DecodeError, Kind, Object, Resource};

/// One thing wrong with a resource that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `spec.quota.bytes`.
    pub field: String,
    /// What.
    pub message: String,
}

impl Problem {
    /// A problem of a field.
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Everything wrong with a resource that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// A resource that another one needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Reference {
    /// A reference.
    pub fn new(kind: Kind, name: &str) -> Self {
        Self { kind, name: name.to_owned() }
    }
}

/// A kind of resource.
pub trait ResourceType: Sized + Send + Sync + fmt::Debug + 'static {
    /// Its entry in the list of kinds.
    const KIND: Kind;
    /// The condition that says whether a resource is what it should be.
    const READY: &'static str = "Ready";
    /// Headings of the table that shows resources of this kind.
    const COLUMNS: &'static [&'static str];
    /// What is wanted.
    type Spec: Serialize + DeserializeOwned + Clone + PartialEq + fmt::Debug + Send + Sync;
    /// What is.
    type Status: Serialize + DeserializeOwned + Clone + PartialEq + fmt::Debug + Send + Sync;

    /// The status of a resource nobody has looked at yet. `number` is given to no other resource of this kind, ever;
    /// `None` if the kind has no room for it.
    fn born(number: u64) -> Option<Self::Status>;

    /// Takes back from a status what was true only of a controller that has ended since.
    fn restarted(_status: &mut Self::Status) {}

    /// The part of a status that every kind has.
    fn common(status: &Self::Status) -> &Common;

    /// The same, to be changed.
    fn common_mut(status: &mut Self::Status) -> &mut Common;

    /// What is wrong with a name or spec, and with replacing `old` by it.
    fn check(name: &str, spec: &Self::Spec, old: Option<&Self::Spec>) -> Vec<Problem>;

    /// The resources it needs.
    fn references(spec: &Self::Spec, status: &Self::Status) -> Vec<Reference>;

    /// Its row in the table of its kind: one cell per heading.
    fn row(resource: &Resource<Self>) -> Vec<String>;
}

/// A kind, for code that knows it only at run time.
pub struct KindInfo {
    /// `Tenant`
    pub singular: &'static str,
    /// `tenants`
    pub plural: &'static str,
    /// See [`ResourceType::READY`].
    pub ready: &'static str,
    /// See [`ResourceType::COLUMNS`].
    pub columns: &'static [&'static str],
    /// Checks a spec and writes it in full (defaults filled in); `old` is what it replaces.
    pub admit: fn(name: &str, spec: &Value, old: Option<&Value>) -> Result<Value, Invalid>,
    /// See [`ResourceType::born`].
    pub born: fn(number: u64) -> Option<Value>,
    /// See [`ResourceType::restarted`].
    pub restarted: fn(&Object) -> Result<Value, DecodeError>,
    /// See [`ResourceType::references`].
    pub references: fn(&Object) -> Result<Vec<Reference>, DecodeError>,
    /// See [`ResourceType::row`].
    pub row: fn(&Object) -> Result<Vec<String>, DecodeError>,
}

impl KindInfo {
    pub(super) const fn of<T: ResourceType>(singular: &'static str, plural: &'static str) -> Self {
        Self {
            singular,
            plural,
            ready: T::READY,
            columns: T::COLUMNS,
            admit: admit::<T>,
            born: |number| Some(to_value(&T::born(number)?)),
            restarted: |object| {
                let mut status = object.typed::<T>()?.status;
                T::restarted(&mut status);
                Ok(to_value(&status))
            },
            references: |object| {
                let resource = object.typed::<T>()?;
                Ok(T::references(&resource.spec, &resource.status))
            },
            row: |object| Ok(T::row(&object.typed::<T>()?)),
        }
    }
}

/// Writes a spec or status, which are plain data, as JSON.
pub(crate) fn to_value<S: Serialize>(data: &S) -> Value {
    serde_json::to_value(data).expect("plain data with string keys can always be written as JSON")
}

fn admit<T: ResourceType>(name: &str, spec: &Value, old: Option<&Value>) -> Result<Value, Invalid> {
    let empty = Value::Object(serde_json::Map::new());
    let spec = if spec.is_null() { &empty } else { spec };
    let spec: T::Spec = serde_path_to_error::deserialize(spec).map_err(|e| {
        let path = e.path().to_string();
        let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
        Invalid(vec![Problem { field, message: e.into_inner().to_string() }])
    })?;
    // A spec written by an older version may not be understood any more; then there is nothing to compare with.
    let old = old.and_then(|old| T::Spec::deserialize(old).ok());
    match T::check(name, &spec, old.as_ref()) {
        problems if problems.is_empty() => Ok(to_value(&spec)),
        problems => Err(Invalid(problems)),
    }
}

/// Longest name of a tenant or pool, in bytes.
pub(super) const NAME_MAX: usize = 63;

/// What is wrong with a name of at most `longest` bytes that people choose.
pub(super) fn check_plain_name(name: &str, longest: usize) -> Option<Problem> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=longest).contains(&name.len()) && name.chars().all(good) && !name.starts_with('-');
    (!fits).then(|| {
        Problem::new(
            "metadata.name",
            format!(
                "'{name}' is not a name; use 1 to {longest} lower-case letters, digits and '-', not '-' first"
            ),
        )
    })
}

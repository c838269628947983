//! Keys and values of the system shard.
//!
//! | key | value |
//! |---|---|
//! | `meta/format` | the format, one byte |
//! | `meta/version` | the version of the last change, 8 bytes big-endian |
//! | `count/<what>` | the last number given out, 8 bytes big-endian |
//! | `res/<kind>/<name>` | the format, then the resource as JSON |

use address_map::key::Key;

use super::StoreError;
use crate::resource::{Kind, Object};

/// The format written by this version.
pub(super) const FORMAT: u8 = 1;

pub(super) const FORMAT_KEY: &[u8] = b"meta/format";
pub(super) const VERSION_KEY: &[u8] = b"meta/version";

/// The counter of uids.
pub(super) const UID_COUNTER: &str = "uid";

pub(super) fn counter_key(what: &str) -> Key {
    Key::from_slice(format!("count/{what}").as_bytes())
}

pub(super) fn kind_prefix(kind: Kind) -> Key {
    Key::from_slice(format!("res/{}/", kind.info().plural).as_bytes())
}

pub(super) fn resource_key(kind: Kind, name: &str) -> Key {
    let mut key = kind_prefix(kind);
    key.extend_from_slice(name.as_bytes());
    key
}

pub(super) fn encode(object: &Object) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, object).expect("a resource can always be written as JSON");
    bytes
}

pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Object, StoreError> {
    let corrupt = |source| StoreError::Corrupt { key: key.escape_ascii().to_string(), source };
    let (&format, json) = bytes.split_first().ok_or_else(|| corrupt(None))?;
    check_format(format)?;
    serde_json::from_slice(json).map_err(|e| corrupt(Some(e)))
}

pub(super) fn check_format(found: u8) -> Result<(), StoreError> {
    if found > FORMAT { Err(StoreError::TooNew { found, known: FORMAT }) } else { Ok(()) }
}

pub(super) fn decode_number(key: &[u8], bytes: &[u8]) -> Result<u64, StoreError> {
    let eight = bytes.try_into();
    let bad = |_| StoreError::Corrupt { key: key.escape_ascii().to_string(), source: None };
    Ok(u64::from_be_bytes(eight.map_err(bad)?))
}

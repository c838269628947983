//! Amounts of bytes: read as `10GiB` or a plain number, kept as a number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

const BINARY: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const DECIMAL: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];

/// `bytes` for people: `1536` is `1.5KiB`.
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in BINARY {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value.fract() < 0.05 || value >= 100.0 {
        format!("{value:.0}{unit}")
    } else {
        format!("{value:.1}{unit}")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human_bytes(self.0))
    }
}

/// How many bytes one of `unit` is; `None` if there is no such unit.
fn unit_bytes(unit: &str) -> Option<u64> {
    if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
        return Some(1);
    }
    let power = |units: [&str; 6], base: u64| {
        let place = units.iter().position(|name| name.eq_ignore_ascii_case(unit))?;
        base.checked_pow(place as u32 + 1)
    };
    let short = || {
        let place = BINARY.iter().position(|name| name[..1].eq_ignore_ascii_case(unit))?;
        1024u64.checked_pow(place as u32 + 1)
    };
    power(BINARY, 1024).or_else(|| power(DECIMAL, 1000)).or_else(short)
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not an amount of bytes; write it like 10GiB, 500MB or 1048576");
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit_bytes(unit.trim()).ok_or_else(bad)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Self).ok_or_else(|| format!("'{text}' is more than 16EiB"));
        }
        let fraction = number.parse::<f64>().map_err(|_| bad())? * unit as f64;
        if fraction < u64::MAX as f64 {
            Ok(Self(fraction as u64))
        } else {
            Err(format!("'{text}' is more than 16EiB"))
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of bytes like 10GiB or 1048576")
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::custom("an amount of bytes cannot be negative"))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("10g", 10 << 30),
            ("500MB", 500_000_000),
            ("1.5KiB", 1536),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "GiB", "10 parsecs", "-1", "1.2.3", "99999EiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<ByteSize>("12").unwrap(), ByteSize(12));
        assert!(serde_json::from_str::<ByteSize>("-12").is_err());
    }

    #[test]
    fn amounts_are_shown_for_people() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (10 << 30, "10GiB"), (u64::MAX, "16EiB")]
        {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}

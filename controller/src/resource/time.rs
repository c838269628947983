//! Points in time as resources carry them: RFC 3339, UTC, whole seconds.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, to the second; written as `2031-05-07T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(SystemTime);

impl Time {
    /// The time, as the system counts it.
    pub fn system(self) -> SystemTime {
        self.0
    }

    /// Parses RFC 3339 in UTC.
    pub fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_rfc3339(text)
            .map(Self::from)
            .map_err(|e| format!("'{text}' is not a time like 2031-05-07T12:00:00Z: {e}"))
    }
}

impl From<SystemTime> for Time {
    /// Cuts to the second; times before 1970 become 1970.
    fn from(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Self(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND)))
    }
}

/// 9999-12-31T23:59:59Z, the last second RFC 3339 can write, in seconds since 1970.
const LAST_SECOND: u64 = 253_402_300_799;

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(self.0).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Time::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_as_rfc3339() {
        let time: Time = serde_json::from_str("\"2031-05-07T12:00:00.25Z\"").unwrap();
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2031-05-07T12:00:00Z\"");
        assert!(serde_json::from_str::<Time>("\"tomorrow\"").unwrap_err().to_string().contains("tomorrow"));
        assert_eq!(
            Time::from(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)).to_string().len(),
            20
        );
    }
}

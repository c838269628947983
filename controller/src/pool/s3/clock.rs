//! How far the clocks of the endpoint and of this machine are apart, seen in every answer: an endpoint refuses what is
//! signed minutes away from its own time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

/// No answer had a date yet.
const UNKNOWN: i64 = i64::MIN;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct ClockWatch(Arc<AtomicI64>);

impl Default for ClockWatch {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNKNOWN)))
    }
}

impl ClockWatch {
    /// By how many seconds the endpoint's clock was ahead when it last said; `None`: it never did.
    pub(super) fn skew_seconds(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&skew| skew != UNKNOWN)
    }

    fn saw(&self, date: &str, now: SystemTime) {
        let Ok(there) = DateTime::from_str(date, DateTimeFormat::HttpDate) else { return };
        let here = DateTime::from(now).secs();
        self.0.store(there.secs().saturating_sub(here), Ordering::Relaxed);
    }
}

impl Intercept for ClockWatch {
    fn name(&self) -> &'static str {
        "ClockWatch"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.saw(date, SystemTime::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_date_counts() {
        let (clock, now) = (ClockWatch::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
        assert_eq!(clock.skew_seconds(), None);
        clock.saw("Sun, 06 Nov 1994 08:49:37 GMT", now);
        assert_eq!(clock.skew_seconds(), Some(0));
        clock.saw("Sun, 06 Nov 1994 08:39:37 GMT", now);
        clock.saw("yesterday", now);
        assert_eq!(clock.skew_seconds(), Some(-600));
    }
}

//! The controller's metrics: their names, units and meaning, in one place.
//!
//! | name | unit | meaning |
//! |---|---|---|
//! | `vmds_resources` | resources | by kind and whether they are what they should be |
//! | `vmds_mounts` | mounts | by whether requests are being answered |
//! | `vmds_queue_length` | resources | waiting for their reconciler, by kind |
//! | `vmds_reconciled_total` | runs | of reconcilers, by kind and outcome |
//! | `vmds_api_requests_total` | requests | by method and class of the answer's status |
//! | `vmds_forgeries_total` | requests | of VMDSes that no honest one makes, by kind; the log says whose |
//! | `vmds_audit_dropped_total` | entries | that the audit log of leases lacks: it could not be written, or not fast enough |
//! | `vmds_disk_cache_bytes`, `vmds_disk_cache_bytes_max` | bytes | in the disk cache of a pool, and what it may hold; by pool |
//! | `vmds_disk_cache_objects` | objects | of which something is in it |
//! | `vmds_disk_cache_hits_total`, `vmds_disk_cache_misses_total` | chunks | that were asked for: there, or fetched |
//! | `vmds_disk_cache_evictions_total`, `vmds_disk_cache_damaged_total` | objects | that went: for others, or because they were damaged |
//! | `vmds_disk_cache_no_room_total` | chunks | that were not cached because nothing could go, or the disk takes nothing |
//! | `vmds_store_version` | changes | of resources, ever |

mod disk_cache;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::audit::Dropped;
use crate::resource::Kind;
pub use disk_cache::{DiskCacheCounts, DiskCaches};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    kind: &'static str,
    ready: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServingLabels {
    serving: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// How a run of a reconciler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReconcileOutcome {
    /// Well.
    Ok,
    /// To be tried again.
    Failed,
}

/// Labels of `vmds_reconciled_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReconcileLabels {
    kind: &'static str,
    outcome: ReconcileOutcome,
}

impl ReconcileLabels {
    /// The labels of a run.
    pub fn new(kind: Kind, outcome: ReconcileOutcome) -> Self {
        Self { kind: kind.info().singular, outcome }
    }
}

/// Labels of `vmds_api_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    method: &'static str,
    status: &'static str,
}

impl RequestLabels {
    /// The labels of an answered request. Both have few values, whatever clients send.
    pub fn new(method: &str, status: u16) -> Self {
        let method = ["GET", "PUT", "POST", "DELETE"].into_iter().find(|known| *known == method);
        let status = match status {
            200..300 => "2xx",
            400..500 => "4xx",
            500..600 => "5xx",
            _ => "other",
        };
        Self { method: method.unwrap_or("other"), status }
    }
}

/// What no honest VMDS sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Forgery {
    /// A frame that is none, or not at this time.
    Frame,
    /// A request that is none of the protocol's.
    Request,
    /// An inode that it was never told of.
    Node,
    /// A share that there never was.
    Slot,
}

impl Forgery {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Forgery::Frame => "frame",
            Forgery::Request => "request",
            Forgery::Node => "node",
            Forgery::Slot => "slot",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForgeryLabels {
    kind: Forgery,
}

/// `vmds_forgeries_total`: counted where the links are, shown with the other metrics.
#[derive(Clone, Debug, Default)]
pub struct Forgeries(Family<ForgeryLabels, Counter>);

impl Forgeries {
    /// Counts one.
    pub fn count(&self, kind: Forgery) {
        self.0.get_or_create(&ForgeryLabels { kind }).inc();
    }

    /// How many there were of a kind.
    pub fn counted(&self, kind: Forgery) -> u64 {
        self.0.get_or_create(&ForgeryLabels { kind }).get()
    }
}

/// The metrics.
pub struct Metrics {
    registry: Registry,
    resources: Family<ResourceLabels, Gauge>,
    mounts: Family<ServingLabels, Gauge>,
    queue: Family<KindLabels, Gauge>,
    store_version: Gauge,
    /// Runs of reconcilers.
    pub reconciled: Family<ReconcileLabels, Counter>,
    /// Answered requests.
    pub requests: Family<RequestLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Forgeries::default(), Dropped::default(), DiskCaches::default())
    }
}

impl Metrics {
    /// Metrics that show these counters among others.
    pub fn new(forgeries: Forgeries, audit_dropped: Dropped, disk_caches: DiskCaches) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("vmds"),
            resources: Family::default(),
            mounts: Family::default(),
            queue: Family::default(),
            store_version: Gauge::default(),
            reconciled: Family::default(),
            requests: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("resources", "Resources by kind and readiness", metrics.resources.clone());
        registry.register("mounts", "Mounts by whether requests are being answered", metrics.mounts.clone());
        registry.register("queue_length", "Resources waiting for their reconciler", metrics.queue.clone());
        registry.register("store_version", "Changes of resources, ever", metrics.store_version.clone());
        registry.register("reconciled", "Runs of reconcilers by outcome", metrics.reconciled.clone());
        registry.register("api_requests", "Answered API requests", metrics.requests.clone());
        registry.register("forgeries", "Requests of VMDSes that no honest one makes", forgeries.0);
        registry.register("audit_dropped", "Entries that the audit log lacks", audit_dropped.0);
        disk_caches.register(registry);
        metrics
    }

    /// Records how many resources of a kind there are, ready and not, and how many wait.
    pub fn set_kind(&self, kind: Kind, ready: usize, not_ready: usize, waiting: usize) {
        let kind = kind.info().singular;
        self.resources.get_or_create(&ResourceLabels { kind, ready: true }).set(ready as i64);
        self.resources.get_or_create(&ResourceLabels { kind, ready: false }).set(not_ready as i64);
        self.queue.get_or_create(&KindLabels { kind }).set(waiting as i64);
    }

    /// Records how many mounts answer requests, and how many do not.
    pub fn set_mounts(&self, serving: usize, not_serving: usize) {
        self.mounts.get_or_create(&ServingLabels { serving: true }).set(serving as i64);
        self.mounts.get_or_create(&ServingLabels { serving: false }).set(not_serving as i64);
    }

    /// Records the version of the store.
    pub fn set_store_version(&self, version: u64) {
        self.store_version.set(i64::try_from(version).unwrap_or(i64::MAX));
    }

    /// All of them, as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into memory cannot fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_for_prometheus() {
        let forgeries = Forgeries::default();
        let disk_caches = DiskCaches::default();
        let metrics = Metrics::new(forgeries.clone(), Dropped::default(), disk_caches.clone());
        disk_caches.of("big").holds(7, 1);
        disk_caches.of("gone").hit();
        disk_caches.forget("gone");
        forgeries.count(Forgery::Slot);
        metrics.set_kind(Kind::Tenant, 2, 1, 3);
        metrics.set_mounts(1, 0);
        metrics.set_store_version(9);
        metrics.reconciled.get_or_create(&ReconcileLabels::new(Kind::Pool, ReconcileOutcome::Failed)).inc();
        metrics.requests.get_or_create(&RequestLabels::new("BREW", 418)).inc();
        let text = metrics.text();
        for line in [
            "vmds_resources{kind=\"Tenant\",ready=\"false\"} 1",
            "vmds_queue_length{kind=\"Tenant\"} 3",
            "vmds_mounts{serving=\"true\"} 1",
            "vmds_store_version 9",
            "vmds_reconciled_total{kind=\"Pool\",outcome=\"Failed\"} 1",
            "vmds_forgeries_total{kind=\"Slot\"} 1",
            "vmds_audit_dropped_total 0",
            "vmds_disk_cache_bytes{pool=\"big\"} 7",
            "vmds_disk_cache_hits_total{pool=\"big\"} 0",
            "vmds_api_requests_total{method=\"other\",status=\"4xx\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
    }
}

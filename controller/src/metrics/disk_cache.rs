//! What the disk caches of pools count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

/// The caches of all pools.
#[derive(Clone, Debug, Default)]
pub struct DiskCaches {
    bytes: Family<PoolLabels, Gauge>,
    bytes_max: Family<PoolLabels, Gauge>,
    objects: Family<PoolLabels, Gauge>,
    hits: Family<PoolLabels, Counter>,
    misses: Family<PoolLabels, Counter>,
    evictions: Family<PoolLabels, Counter>,
    damaged: Family<PoolLabels, Counter>,
    no_room: Family<PoolLabels, Counter>,
}

/// The counts of one cache.
#[derive(Clone, Debug, Default)]
pub struct DiskCacheCounts {
    bytes: Gauge,
    bytes_max: Gauge,
    objects: Gauge,
    hits: Counter,
    misses: Counter,
    evictions: Counter,
    damaged: Counter,
    no_room: Counter,
}

impl DiskCaches {
    /// The counts of the cache of a pool.
    pub fn of(&self, pool: &str) -> DiskCacheCounts {
        let labels = PoolLabels { pool: pool.to_owned() };
        DiskCacheCounts {
            bytes: self.bytes.get_or_create(&labels).clone(),
            bytes_max: self.bytes_max.get_or_create(&labels).clone(),
            objects: self.objects.get_or_create(&labels).clone(),
            hits: self.hits.get_or_create(&labels).clone(),
            misses: self.misses.get_or_create(&labels).clone(),
            evictions: self.evictions.get_or_create(&labels).clone(),
            damaged: self.damaged.get_or_create(&labels).clone(),
            no_room: self.no_room.get_or_create(&labels).clone(),
        }
    }

    /// A pool has no cache any more.
    pub fn forget(&self, pool: &str) {
        let labels = PoolLabels { pool: pool.to_owned() };
        for gauge in [&self.bytes, &self.bytes_max, &self.objects] {
            gauge.remove(&labels);
        }
        for counter in [&self.hits, &self.misses, &self.evictions, &self.damaged, &self.no_room] {
            counter.remove(&labels);
        }
    }

    pub(super) fn register(self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("disk_cache");
        registry.register("bytes", "Bytes of objects in the disk cache of a pool", self.bytes);
        registry.register("bytes_max", "What they may be", self.bytes_max);
        registry.register("objects", "Objects of which something is in the disk cache", self.objects);
        registry.register("hits", "Chunks that were asked for and there", self.hits);
        registry.register("misses", "Chunks that were asked for and had to be fetched", self.misses);
        registry.register("evictions", "Objects that went because others needed the room", self.evictions);
        registry.register("damaged", "Objects that went because they were damaged on the disk", self.damaged);
        registry.register("no_room", "Chunks that were not cached because nothing could go", self.no_room);
    }
}

impl DiskCacheCounts {
    /// It may take so many bytes.
    pub fn may_hold(&self, bytes: u64) {
        self.bytes_max.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// It takes so many bytes, for so many objects.
    pub fn holds(&self, bytes: u64, objects: u64) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.objects.set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// A chunk was asked for and there.
    pub fn hit(&self) {
        self.hits.inc();
    }

    /// A chunk was asked for and had to be fetched.
    pub fn missed(&self) {
        self.misses.inc();
    }

    /// An object went because others needed the room.
    pub fn evicted(&self) {
        self.evictions.inc();
    }

    /// An object went because it was damaged.
    pub fn damaged(&self) {
        self.damaged.inc();
    }

    /// A chunk was not cached because nothing could go, or the directory takes nothing.
    pub fn no_room(&self) {
        self.no_room.inc();
    }
}

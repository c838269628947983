//! Decisions about where things go: which shard holds a tenant, which pool its bytes. Pure; made once, then recorded.

use address_map::ids::{ShardId, TenantId};

/// The pool that is used where none is asked for.
pub const DEFAULT_POOL: &str = "default";

/// The shard of a tenant by rendezvous hashing: each shard draws a number from the tenant's, the largest wins. With
/// one more shard only the tenants that it wins would move.
pub fn shard_of(tenant: TenantId, shards: u16) -> ShardId {
    let draw = |shard: &u16| mix(u64::from(tenant.0) << 16 | u64::from(*shard));
    ShardId((0..shards.max(1)).max_by_key(draw).unwrap_or(0))
}

/// SplitMix64's finalizer: a fixed permutation of 64-bit numbers that looks random. Part of the format.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The name of the pool for a tenant's new files: what it asks for, else what was chosen before, else the default.
pub fn pool_for<'a>(asked: Option<&'a str>, chosen_before: Option<&'a str>) -> &'a str {
    asked.or(chosen_before).unwrap_or(DEFAULT_POOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_spread_over_all_shards_and_stay() {
        let mut counts = [0u32; 16];
        for tenant in 1..=16_000 {
            counts[shard_of(TenantId(tenant), 16).0 as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (800..1200).contains(&n)), "{counts:?}");
        assert_eq!(shard_of(TenantId(1), 16), shard_of(TenantId(1), 16));
        assert_eq!(shard_of(TenantId(9), 1), ShardId(0));
    }

    #[test]
    fn one_more_shard_moves_only_what_it_wins() {
        for tenant in 1..=2_000 {
            let (before, after) = (shard_of(TenantId(tenant), 16), shard_of(TenantId(tenant), 17));
            assert!(after == before || after == ShardId(16));
        }
    }

    #[test]
    fn a_pool_asked_for_wins_over_one_chosen_before() {
        assert_eq!(pool_for(None, None), DEFAULT_POOL);
        assert_eq!(pool_for(None, Some("old")), "old");
        assert_eq!(pool_for(Some("new"), Some("old")), "new");
    }
}

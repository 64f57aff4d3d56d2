//! How many packets of one address are opened per second: a flood of rubbish must not cost the gossip thread its turn.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Packets per second one address may send for long. A fleet of 500 nodes behind one address stays below it.
const RATE_PER_SECOND: f64 = 5_000.0;
/// Packets it may send at once.
const BURST: f64 = 5_000.0;
/// Most addresses counted apart; all others share one allowance.
const SOURCES_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn full(now: Duration) -> Self {
        Self { tokens: BURST, at: now }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * RATE_PER_SECOND).min(BURST);
        self.at = now;
    }

    fn take(&mut self, now: Duration) -> bool {
        self.refill(now);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

/// The allowances of all addresses.
#[derive(Debug)]
pub(super) struct Sources {
    buckets: BTreeMap<IpAddr, Bucket>,
    others: Bucket,
}

impl Sources {
    pub(super) fn new() -> Self {
        Self { buckets: BTreeMap::new(), others: Bucket::full(Duration::ZERO) }
    }

    /// Whether one more packet of `source` may be opened at `now`.
    pub(super) fn allow(&mut self, now: Duration, source: IpAddr) -> bool {
        if let Some(bucket) = self.buckets.get_mut(&source) {
            return bucket.take(now);
        }
        if self.buckets.len() >= SOURCES_MAX {
            // Looked for only where the shared allowance is at its end, so not once per forged packet.
            if self.others.take(now) {
                return true;
            }
            self.forget_idle(now);
            return false;
        }
        let mut bucket = Bucket::full(now);
        let allowed = bucket.take(now);
        self.buckets.insert(source, bucket);
        allowed
    }

    /// Forgets addresses whose allowance is whole again: nothing is lost by it.
    fn forget_idle(&mut self, now: Duration) {
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            bucket.tokens < BURST
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_others_are_not() {
        let mut sources = Sources::new();
        let (loud, quiet) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let now = Duration::from_secs(1);
        let passed = (0..20_000).filter(|_| sources.allow(now, loud)).count();
        assert_eq!(passed, 5_000);
        assert!(sources.allow(now, quiet));
        let later = now + Duration::from_millis(100);
        assert_eq!((0..20_000).filter(|_| sources.allow(later, loud)).count(), 500);
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let mut sources = Sources::new();
        let now = Duration::from_secs(1);
        for number in 0..20_000u32 {
            sources.allow(now, IpAddr::from(number.to_be_bytes()));
        }
        assert!(sources.buckets.len() <= SOURCES_MAX);
        let later = now + Duration::from_secs(10);
        assert!(sources.allow(later, IpAddr::from([99, 0, 0, 1])));
    }
}

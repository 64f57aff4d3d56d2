//! Sums of the digests of entries, by the first bits of the hashes of their keys: equal sums mean equal entries. A sum is
//! kept up with each change, and the sum of a range is the sum of its parts, so any granularity can be had.
//!
//! Sums of 64 bits and more do not meet by accident. Who wants them to meet must be a member, which could as well write.

/// Bits of a hash that tell the finest parts apart.
pub(super) const BITS_MAX: u8 = 10;
/// Entries for which one part is fine enough, so that comparing it costs little.
const ENTRIES_PER_PART: usize = 32;

/// The sums of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    parts: Vec<u128>,
    root: u128,
}

impl Sums {
    pub(super) fn new() -> Self {
        Self { parts: vec![0; 1 << BITS_MAX], root: 0 }
    }

    /// Adds an entry with `digest` under `hash`.
    pub(super) fn add(&mut self, hash: u64, digest: u128) {
        let part = &mut self.parts[part_of(hash, BITS_MAX)];
        *part = part.wrapping_add(digest);
        self.root = self.root.wrapping_add(digest);
    }

    /// Takes an entry with `digest` under `hash` away.
    pub(super) fn subtract(&mut self, hash: u64, digest: u128) {
        self.add(hash, 0_u128.wrapping_sub(digest));
    }

    /// The sum of everything.
    pub(super) fn root(&self) -> u128 {
        self.root
    }

    /// The sums of the `2^bits` parts, in order, cut to what is sent.
    pub(super) fn of_parts(&self, bits: u8) -> Vec<u64> {
        let size = 1 << (BITS_MAX - bits.min(BITS_MAX));
        let sum = |parts: &[u128]| parts.iter().fold(0_u128, |sum, part| sum.wrapping_add(*part));
        self.parts.chunks(size).map(|parts| short(sum(parts))).collect()
    }
}

/// A digest or sum as it is sent.
pub(super) fn short(digest: u128) -> u64 {
    digest as u64
}

/// The part, out of `2^bits`, into which `hash` falls.
pub(super) fn part_of(hash: u64, bits: u8) -> usize {
    if bits == 0 { 0 } else { (hash >> (64 - u32::from(bits.min(BITS_MAX)))) as usize }
}

/// The hashes that fall into `part` out of `2^bits`: first and last.
pub(super) fn bounds(part: u16, bits: u8) -> (u64, u64) {
    let bits = u32::from(bits.min(BITS_MAX));
    if bits == 0 {
        return (0, u64::MAX);
    }
    let first = u64::from(part) << (64 - bits);
    (first, first | (u64::MAX >> bits))
}

/// How many bits to compare by where a copy has `entries`.
pub(super) fn bits_for(entries: usize) -> u8 {
    let parts = (entries / ENTRIES_PER_PART).next_power_of_two();
    u8::try_from(parts.trailing_zeros()).unwrap_or(BITS_MAX).min(BITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_that_of_its_parts_and_follows_each_change() {
        let mut sums = Sums::new();
        let entries = [(1_u64 << 63, u128::MAX), (3, 9), (u64::MAX, 12)];
        entries.iter().for_each(|(hash, digest)| sums.add(*hash, *digest));
        assert_eq!(sums.root(), 20);
        assert_eq!(sums.of_parts(0), [20]);
        assert_eq!(sums.of_parts(1), [9, 11]);
        assert_eq!(sums.of_parts(BITS_MAX).len(), 1024);
        sums.subtract(3, 9);
        assert_eq!(sums.of_parts(1), [0, 11]);
        sums.subtract(1 << 63, u128::MAX);
        sums.subtract(u64::MAX, 12);
        assert_eq!(sums, Sums::new());
    }

    #[test]
    fn parts_meet_without_gaps() {
        for bits in 0..=BITS_MAX {
            let last = u16::try_from((1_u32 << bits) - 1).unwrap();
            assert_eq!((bounds(0, bits).0, bounds(last, bits).1), (0, u64::MAX));
            for part in 0..last {
                let (first, end) = bounds(part, bits);
                assert_eq!(end + 1, bounds(part + 1, bits).0);
                assert_eq!((part_of(first, bits), part_of(end, bits)), (part.into(), part.into()));
            }
        }
        assert_eq!((bits_for(0), bits_for(63), bits_for(64), bits_for(10_000), bits_for(1_000_000)), (0, 0, 1, 9, 10));
    }
}

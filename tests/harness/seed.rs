//! Randomness that can be had again: a small generator, and the seed of a run, which is printed and replays with
//! `FLEET_SEED`. And the size of a run.

/// How large this run is: `small` for plain `cargo test`, `ci` for the gate, `long` for figures.
pub fn sized<T>(small: T, ci: T, long: T) -> T {
    match std::env::var("FLEET_TEST_SIZE").as_deref() {
        Ok("ci") => ci,
        Ok("long") => long,
        _ => small,
    }
}

/// The seed of this run: that of `FLEET_SEED`, else a new one. Printed, so that a failure can be had again.
pub fn seed() -> u64 {
    seed_or(None)
}

/// The same, but without `FLEET_SEED` it is `fixed`, where that is given.
pub fn seed_or(fixed: Option<u64>) -> u64 {
    let given = std::env::var("FLEET_SEED").ok().map(|text| text.parse().expect("FLEET_SEED is a number"));
    let fresh = || u64::from_le_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().expect("eight bytes"));
    let seed = given.or(fixed).unwrap_or_else(fresh);
    eprintln!("seed {seed}: run again with FLEET_SEED={seed}");
    seed
}

/// SplitMix64: good enough to choose bytes, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("it is below a usize")
    }

    /// Up to `length_max` random bytes.
    pub fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        let length = self.below(length_max + 1);
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// `bytes` with a few of them changed, inserted, taken out or cut off.
    pub fn mutated(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(6) {
            let position = self.below(bytes.len() + 1);
            let byte = self.next().to_le_bytes()[0];
            match self.below(4) {
                0 => bytes.insert(position, byte),
                1 if position < bytes.len() => drop(bytes.remove(position)),
                2 if position > 0 => bytes.truncate(position),
                _ if position < bytes.len() => bytes[position] = byte,
                _ => bytes.push(byte),
            }
        }
        bytes
    }
}

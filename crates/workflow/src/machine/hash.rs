//! A hash that is the same on every machine: for what must look random and be replayed, and to tell definitions apart.
//! It is no protection against anybody who wants to be hit.

/// A number that looks random and is the same for the same words: FNV-1a, its bits mixed once more.
pub(super) fn hash(words: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn the_hash_depends_on_every_word_and_its_bounds() {
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["ab", ""]));
        assert_ne!(hash(&["job", "/do/0/x", "1"]), hash(&["job", "/do/0/x", "2"]));
    }
}

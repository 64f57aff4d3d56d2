//! Definitions the robot has, so that they travel once and not with every job.

use std::collections::{HashMap, VecDeque};

use fleet_core::Digest;
use fleet_core::limits::{DEFINITIONS_KEPT_BYTES_MAX, DEFINITIONS_KEPT_MAX};
use fleet_store::record::Payload;

/// A set of definitions, bounded by their count and their bytes; the oldest makes room.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    texts: HashMap<Digest, Payload>,
    order: VecDeque<Digest>,
    bytes: usize,
}

impl Definitions {
    /// The definition with this digest, if it is kept.
    pub(super) fn get(&self, digest: &Digest) -> Option<Payload> {
        self.texts.get(digest).cloned()
    }

    /// Keeps a definition.
    pub(super) fn keep(&mut self, digest: Digest, text: Payload) {
        let bytes = text.as_slice().len();
        if self.texts.insert(digest, text).is_none() {
            self.order.push_back(digest);
            self.bytes += bytes;
        }
        while self.order.len() > DEFINITIONS_KEPT_MAX || self.bytes > DEFINITIONS_KEPT_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.texts.remove(&oldest).map_or(0, |text| text.as_slice().len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_large_definitions_take_the_room_of_many_small_ones() {
        let mut definitions = Definitions::default();
        let large = vec![b'x'; DEFINITIONS_KEPT_BYTES_MAX / 4];
        let digests: Vec<Digest> = (0_u8..6).map(|number| Digest::of(&[number])).collect();
        for digest in &digests {
            definitions.keep(*digest, Payload::from(large.clone()));
            definitions.keep(*digest, Payload::from(large.clone()));
        }
        let kept = digests.iter().filter(|digest| definitions.get(digest).is_some()).count();
        assert_eq!((kept, definitions.bytes), (4, DEFINITIONS_KEPT_BYTES_MAX));
        assert!(definitions.get(&digests[5]).is_some(), "the newest is there");
    }
}

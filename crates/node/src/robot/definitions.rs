//! Definitions the robot has, so that they travel once and not with every job.

use std::collections::{HashMap, VecDeque};

use fleet_core::Digest;
use fleet_store::record::Payload;

/// Most definitions kept.
const KEPT_MAX: usize = 256;

/// A bounded set of definitions; the oldest makes room.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    texts: HashMap<Digest, Payload>,
    order: VecDeque<Digest>,
}

impl Definitions {
    /// The definition with this digest, if it is kept.
    pub(super) fn get(&self, digest: &Digest) -> Option<Payload> {
        self.texts.get(digest).cloned()
    }

    /// Keeps a definition.
    pub(super) fn keep(&mut self, digest: Digest, text: Payload) {
        if self.texts.insert(digest, text).is_none() {
            self.order.push_back(digest);
        }
        if self.order.len() > KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.texts.remove(&oldest);
        }
    }
}

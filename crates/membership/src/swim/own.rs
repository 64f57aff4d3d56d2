//! This node's own metadata: when a new version is published and when the current one is repeated.

use std::time::Duration;

use super::Swim;
use crate::metadata::{Metadata, MetadataItem, NodeState};

/// Repeats asked for by new members are at least this far apart.
const REPEAT_PAUSE: Duration = Duration::from_millis(500);
/// Versions are at least this far apart, however often the content changes.
const PUBLISH_PAUSE: Duration = Duration::from_millis(200);

/// What this node says and when it said it last.
#[derive(Debug)]
pub(super) struct OwnMetadata {
    metadata: Metadata,
    is_news: bool,
    counter: u64,
    item: Option<Vec<u8>>,
    published_at: Duration,
    repeat_at: Duration,
    repeated_at: Duration,
}

impl OwnMetadata {
    pub(super) fn new(metadata: Metadata) -> Self {
        let zero = Duration::ZERO;
        Self { metadata, is_news: true, counter: 0, item: None, published_at: zero, repeat_at: zero, repeated_at: zero }
    }

    pub(super) fn set(&mut self, metadata: Metadata) {
        if self.metadata != metadata {
            self.metadata = metadata;
            self.is_news = true;
        }
    }

    pub(super) fn set_state(&mut self, state: NodeState) {
        self.metadata.state = state;
    }

    /// The version last published, as it travels.
    pub(super) fn item(&self) -> Option<&[u8]> {
        self.item.as_deref()
    }

    pub(super) fn repeat_soon(&mut self, now: Duration) {
        self.repeat_at = self.repeat_at.min((self.repeated_at + REPEAT_PAUSE).max(now));
    }
}

impl Swim {
    pub(super) fn publish_own_if_due(&mut self, now: Duration) {
        if self.own.is_news && !self.is_leaving && now >= self.own.published_at + PUBLISH_PAUSE {
            self.publish_own(now);
        }
    }

    /// Publishes what this node says as a new version.
    pub(super) fn publish_own(&mut self, now: Duration) {
        self.own.counter += 1;
        let version = self.own_version(self.own.counter);
        let node = self.identity().node;
        let item = MetadataItem { node, version, metadata: self.own.metadata.clone() };
        // The handle refuses metadata that does not fit, so an item that cannot be written keeps the version before it.
        if let Ok(bytes) = item.encode() {
            self.own.item = Some(bytes);
            self.table.borrow_mut().set_own(version, item.metadata);
        }
        self.own.is_news = false;
        self.own.published_at = now;
        self.repeat_own(now);
    }

    pub(super) fn repeat_own_if_due(&mut self, now: Duration) {
        if now >= self.own.repeat_at {
            self.repeat_own(now);
        }
    }

    fn repeat_own(&mut self, now: Duration) {
        self.own.repeated_at = now;
        self.own.repeat_at = now + self.jittered(self.profile.repeat_every());
        self.add_own_broadcast();
    }

    /// Hands the current version to foca, to be passed on as often as anything new.
    pub(super) fn add_own_broadcast(&mut self) {
        if let Some(item) = &self.own.item {
            // It fails only for items larger than a packet, which `encode` does not make.
            let _added = self.foca.add_broadcast(item);
        }
    }
}

//! Other sites of the fleet as ports: what is asked of them, what they ask of this one, and what is known of them.
//!
//! Between two sites there may be no link for days. Whoever asks gets `Unavailable` then, and asks again later: nothing
//! here is durable, and every message is safe to repeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use fleet_core::{Error, GroupId, SiteName, Timestamp};
use fleet_store::record::Payload;

/// What a message between sites is about. Its bytes begin with a format version that the topic's owner knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SiteTopic {
    /// Moves of jobs and their results; answered by the site's leader.
    Courier,
    /// Digests and rows of the catalog; answered by any node.
    Catalog,
    /// A call of a client about the other site's own work; answered by the site's leader.
    Client,
    /// Which sites the fleet has, and where their nodes answer; answered by the site's leader.
    Registry,
}

/// Asks other sites. One call is one message and its answer.
pub trait Sites: Send + Sync + 'static {
    /// Hands `message` to `site` and gives its answer.
    ///
    /// The error is `Unavailable` where there is no link or it broke meanwhile (the other site may have acted all the
    /// same), `NotFound` where no such site is known, else what the other site answered.
    fn ask(&self, site: SiteName, topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>>;

    /// What is known of the other sites, now and as it changes.
    fn known(&self) -> watch::Receiver<Arc<KnownSites>>;
}

/// Answers what other sites ask, for one topic.
pub trait SiteServer: Send + Sync + 'static {
    /// Answers `message` of `from`, which its link has proved to be that site.
    fn answer(&self, from: SiteName, message: Payload) -> BoxFuture<'static, Result<Payload, Error>>;
}

/// The other sites by name; this one is not among them.
pub type KnownSites = BTreeMap<SiteName, KnownSite>;

/// Another site as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSite {
    /// The group that agrees on its log.
    pub group: GroupId,
    /// Whether there is a link to it now.
    pub is_linked: bool,
    /// When it was last heard, by this node's wall clock; `None`: never by this node.
    pub heard_at: Option<Timestamp>,
    /// What its robots offered when it was last heard.
    pub robots: Vec<RobotOffer>,
}

/// What a robot of another site can be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotOffer {
    /// Name of its node.
    pub node: String,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// What its configuration allows, sorted.
    pub capabilities: Vec<String>,
    /// How many jobs it runs at once.
    pub slots: u32,
}

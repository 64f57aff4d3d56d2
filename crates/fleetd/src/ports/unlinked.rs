//! Other sites for a node that holds no link to any: what is known of them, and nobody who answers.

use std::sync::Arc;

use fleet_core::{Error, ErrorKind, SiteName};
use fleet_node::ports::{KnownSites, SiteTopic, Sites};
use fleet_store::record::Payload;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// The port.
pub struct UnlinkedSites {
    known: watch::Receiver<Arc<KnownSites>>,
}

impl UnlinkedSites {
    /// Knows what `known` says.
    pub fn new(known: watch::Receiver<Arc<KnownSites>>) -> Self {
        Self { known }
    }
}

impl Sites for UnlinkedSites {
    fn ask(&self, site: SiteName, _: SiteTopic, _: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        async move { Err(Error::new(ErrorKind::Unavailable, format!("ask site {site}: there is no link to it"))) }
            .boxed()
    }

    fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
        self.known.clone()
    }
}

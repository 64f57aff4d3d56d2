//! Whether a client's call is about this site. One that names another in its header is refused here, before any method of
//! the service could take it for a call about this one.

use std::sync::Arc;

use fleet_api::client::SITE_HEADER;
use fleet_api::status::status_of;
use fleet_core::time::age;
use fleet_core::{Clock, Error, ErrorKind, SiteName, SystemClock, Timestamp};
use fleet_node::ports::{KnownSite, KnownSites};
use fleet_store::state::sites;
use tokio::sync::watch;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::site::{Site, read_failed};

/// Lets through what is about this site.
#[derive(Clone)]
pub struct OwnSite {
    site: Site,
    heard: watch::Receiver<Arc<KnownSites>>,
}

impl OwnSite {
    /// Lets through what is about `site`, and says of others when they were `heard`.
    pub fn new(site: Site, heard: watch::Receiver<Arc<KnownSites>>) -> Self {
        Self { site, heard }
    }

    fn check(&self, meant: &str) -> Result<(), Error> {
        if meant == self.site.name() {
            return Ok(());
        }
        let wrong = |problem: String| Error::new(ErrorKind::InvalidInput, format!("ask another site: {problem}"));
        let meant: SiteName = meant.parse().map_err(wrong)?;
        let noted = sites::site(&self.site.reader()?, &meant).map_err(read_failed)?;
        let Some(noted) = noted else {
            return Err(Error::new(ErrorKind::NotFound, format!("site `{meant}` does not exist"))
                .with_next_step("`fleetctl site list` shows all sites that this one knows."));
        };
        let message = format!(
            "ask site `{meant}`: this node, of site `{}`, cannot pass a call on to it; {}",
            self.site.name(),
            standing(self.heard.borrow().get(&meant), SystemClock.now())
        );
        Err(Error::new(ErrorKind::Unavailable, message)
            .with_next_step(format!("Ask one of its nodes with `--endpoint`: {}.", noted.contacts.join(", "))))
    }
}

/// How it stands with another site.
fn standing(heard: Option<&KnownSite>, now: Timestamp) -> String {
    match heard {
        Some(KnownSite { is_linked: true, .. }) => "it is linked".to_owned(),
        Some(KnownSite { heard_at: Some(at), .. }) => {
            format!("it was last heard {} ago", age(now.saturating_since(*at)))
        }
        _ => "it was not heard yet".to_owned(),
    }
}

impl Interceptor for OwnSite {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let meant = request.metadata().get(SITE_HEADER).map(|value| value.to_str().unwrap_or_default().to_owned());
        match meant {
            Some(meant) => self.check(&meant).map(|()| request).map_err(|error| status_of(&error)),
            None => Ok(request),
        }
    }
}

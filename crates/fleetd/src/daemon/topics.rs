//! Who answers what other sites ask over the links, and who asks them, topic by topic.

use std::sync::Arc;

use fleet_core::{Error, SiteName};
use fleet_node::ports::{SiteServer, SiteTopic, Sites};
use fleet_store::record::Payload;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::parts::Parts;
use crate::authorities::{self, Authorities};
use crate::notes::Notes;

/// Answers other sites from now on, and starts what asks them. Whoever stops the node ends the tasks.
pub(super) fn start(parts: &Parts, runtime: &Handle) -> [JoinHandle<()>; 3] {
    let links: Arc<dyn Sites> = Arc::new(parts.sites.clone());
    let catalog = parts.catalogs.clone();
    let notes = Notes::new(parts.site.clone(), parts.identity.first_site().clone());
    parts.sites.serve(SiteTopic::Courier, Arc::new(parts.node.courier_server()));
    parts.sites.serve(SiteTopic::Catalog, Arc::new(catalog.clone()));
    let authorities = Authorities::new(parts.site.clone(), parts.trust.clone(), parts.identity.first_site().clone());
    let registry = RegistryTopic { notes: notes.clone(), authorities: authorities.clone() };
    parts.sites.serve(SiteTopic::Registry, Arc::new(registry));
    let group = parts.site.group().clone();
    let leads = move || group.serving_term().is_some();
    [
        runtime.spawn(catalog.run(Arc::clone(&links), leads)),
        runtime.spawn(authorities.run(Arc::clone(&links))),
        runtime.spawn(notes.run(links)),
    ]
}

/// Answers what other sites ask about the registry, by the version of the message. A program that knows only the notes
/// refuses the rest by its version, and the link stays.
struct RegistryTopic {
    notes: Notes,
    authorities: Authorities,
}

impl SiteServer for RegistryTopic {
    fn answer(&self, from: SiteName, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        match message.as_slice().first() {
            Some(&authorities::FORMAT) => self.authorities.answer(from, message),
            _ => self.notes.answer(from, message),
        }
    }
}

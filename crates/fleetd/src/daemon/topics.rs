//! Who answers what other sites ask over the links, and who asks them, topic by topic.

use std::sync::Arc;

use fleet_node::ports::{SiteTopic, Sites};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::parts::Parts;
use crate::notes::Notes;

/// Answers other sites from now on, and starts what asks them. Whoever stops the node ends the tasks.
pub(super) fn start(parts: &Parts, runtime: &Handle) -> [JoinHandle<()>; 2] {
    let links: Arc<dyn Sites> = Arc::new(parts.sites.clone());
    let catalog = parts.catalogs.clone();
    let notes = Notes::new(parts.site.clone(), parts.identity.first_site().clone());
    parts.sites.serve(SiteTopic::Courier, Arc::new(parts.node.courier_server()));
    parts.sites.serve(SiteTopic::Catalog, Arc::new(catalog.clone()));
    parts.sites.serve(SiteTopic::Registry, Arc::new(notes.clone()));
    let group = parts.site.group().clone();
    let leads = move || group.serving_term().is_some();
    [runtime.spawn(catalog.run(Arc::clone(&links), leads)), runtime.spawn(notes.run(links))]
}

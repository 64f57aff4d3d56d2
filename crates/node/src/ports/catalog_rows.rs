//! Where a node keeps its copy of the catalog, as a port: the store's file, or a simulated disk.

use fleet_core::{Error, NodeId};
use fleet_store::record::{CatalogEntry, CatalogFacts, CatalogKey};
use fleet_store::{CatalogChange, Store};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// The rows of one node's copy of the catalog.
pub trait CatalogRows: Send + Sync + 'static {
    /// The node whose rows they are.
    fn node(&self) -> NodeId;
    /// What is known beside the entries.
    fn facts(&self) -> Result<CatalogFacts, Error>;
    /// Shows every entry to `look`.
    fn each(&self, look: &mut dyn FnMut(CatalogKey, CatalogEntry)) -> Result<(), Error>;
    /// The entry under `key`.
    fn entry(&self, key: &CatalogKey) -> Result<Option<CatalogEntry>, Error>;
    /// Writes `change`, whole or not at all. Answers when it is on the disk.
    fn write(&self, change: CatalogChange) -> BoxFuture<'static, Result<(), Error>>;
}

impl CatalogRows for Store {
    fn node(&self) -> NodeId {
        self.node_id()
    }

    fn facts(&self) -> Result<CatalogFacts, Error> {
        self.catalog_facts().map_err(failed("read the catalog"))
    }

    fn each(&self, look: &mut dyn FnMut(CatalogKey, CatalogEntry)) -> Result<(), Error> {
        self.each_catalog_entry(look).map_err(failed("read the catalog"))
    }

    fn entry(&self, key: &CatalogKey) -> Result<Option<CatalogEntry>, Error> {
        self.catalog_entry(key).map_err(failed("read an entry of the catalog"))
    }

    fn write(&self, change: CatalogChange) -> BoxFuture<'static, Result<(), Error>> {
        let pending = self.change_catalog(change);
        async move { pending.await.map_err(failed("write to the catalog")) }.boxed()
    }
}

fn failed(operation: &'static str) -> impl Fn(fleet_store::Error) -> Error {
    move |source| Error::new(source.kind(), operation).with_source(source)
}

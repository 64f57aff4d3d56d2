//! `site recover`: a group that lost its majority for good is founded anew from this node's copy.
//!
//! The request only leaves a mark; the node then goes through a stop and a start, and the start does the work before the
//! group is opened. So nothing of the old epoch runs beside the new one. Dispatch is held until the operator ends it.

use fleet_core::{Clock, Error, ErrorKind, GroupId, SystemClock};
use fleet_replication::recover;
use fleet_store::record::Hold;
use fleet_store::state::jobs;
use fleet_store::state::tables::SITE;
use fleet_store::{StateTransaction, Store};

/// Name of the store's row that asks for a recovery at the next start.
const MARK: &str = "recover";
const ASKED: &[u8] = b"asked";
const DONE: &[u8] = b"done";

/// Leaves the mark, durably.
///
/// # Errors
/// If the store cannot be written.
pub(crate) async fn ask(store: &Store) -> Result<(), Error> {
    store
        .put_meta(MARK, ASKED.to_vec())
        .await
        .map_err(|source| Error::new(source.kind(), "mark the site for recovery").with_source(source))
}

/// Founds `group` anew if the mark asks for it. The group must not be open.
pub(super) async fn carry_out(store: &Store, group: GroupId) -> Result<(), Error> {
    let failed = |source: fleet_store::Error| Error::new(source.kind(), "recover the site").with_source(source);
    if store.meta(MARK).map_err(failed)?.as_deref() != Some(ASKED) {
        return Ok(());
    }
    let now = SystemClock.now();
    let hold = move |state: &mut StateTransaction<'_>| {
        let mut site = jobs::site(state)?;
        site.hold = Some(Hold { awaited: Vec::new(), since: now });
        state.put(&SITE, &(), &site)
    };
    let recovered = recover(store, group, hold)
        .await
        .map_err(|source| Error::new(ErrorKind::FailedPrecondition, "recover the site").with_source(source))?;
    store.put_meta(MARK, DONE.to_vec()).await.map_err(failed)?;
    tracing::warn!(
        epoch = recovered.epoch,
        kept = recovered.kept_index,
        "the site's group is founded anew, dispatch is held"
    );
    Ok(())
}

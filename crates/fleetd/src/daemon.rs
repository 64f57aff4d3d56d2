//! A node from start to stop. `run_on` reads top to bottom as the order of starting; stopping goes the other way.
//! [`keep()`] runs it again in the same process when its store or group failed.

mod asking;
#[cfg(test)]
mod authorities_tests;
mod between_sites;
mod catalog;
mod counts;
pub(crate) mod custody;
mod enroll;
mod expulsion;
mod facts;
mod foundation;
mod founding;
mod joining;
mod keep;
mod keyring;
mod links;
#[cfg(test)]
mod notes_tests;
mod observer;
mod outbox_gauges;
mod parts;
pub(crate) mod recovery;
mod rejoin;
mod removed_sites;
pub(crate) mod renewal;
mod seeds;
mod signals;
mod silence;
mod standing;
mod topics;
#[cfg(test)]
mod trust_tests;
mod validity;
mod welcome;

pub use enroll::{Beginning, Token};
pub use keep::keep;
pub use signals::{watch_signals, watch_stdin};

use std::sync::Arc;
use std::time::Duration;

use fleet_core::{Error, SystemClock};
use fleet_membership::NodeState;
use fleet_node::catalog::Between;
use fleet_store::Store;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::identity::DataDir;
use crate::listener::{Listener, Runtimes};
use crate::ports::{EffectsPort, InterpreterPort};
use crate::site::Site;
use crate::trust::keeper::TrustKeeper;
use facts::NodeFacts;
use observer::{Load, Observer};
use parts::{Outside, Parts};
use standing::Standing;

/// How long calls under way may take once the node stops.
const LISTENER_GRACE: Duration = Duration::from_secs(2);
/// How long processes that run on after their tasks may take to be gone once the node stops.
const DETACHED_GRACE: Duration = Duration::from_secs(2);

/// Runs a node until it ends, then stops it in order. Clients' work runs on the caller's runtime, everything between nodes
/// on `peer`. However it ends, its store is closed: the same file may be opened again.
///
/// # Errors
/// What starting failed with.
async fn run(
    settings: Settings,
    beginning: Beginning,
    peer: Handle,
    standing: Standing,
    stop: watch::Receiver<bool>,
) -> Result<End, Error> {
    let directory = DataDir::open(&settings.data_dir)?;
    parts::check_free(&settings)?;
    let store = parts::open_store(&directory, settings.cache_bytes).await?;
    let around = Around { settings, directory, peer, standing, store: store.clone() };
    let ended = Box::pin(run_on(&around, &beginning, stop)).await;
    around.standing.down("the node has stopped");
    store.close();
    ended
}

/// What a run of the node starts from.
struct Around {
    settings: Settings,
    directory: DataDir,
    peer: Handle,
    standing: Standing,
    store: Store,
}

async fn run_on(around: &Around, beginning: &Beginning, mut stop: watch::Receiver<bool>) -> Result<End, Error> {
    let Around { settings, directory, peer, standing, store } = around;
    let boot = parts::raise_boot_number(store).await?;
    let enrolled = enroll::enroll(settings, beginning, directory, store.node_id()).await?;
    let identity = enrolled.identity.clone();

    let tls = parts::tls(&enrolled, store)?;
    let peers = parts::peers(&tls, peer);
    let listener = Listener::bind(settings.listen, parts::listener_options(&tls, identity.dev))?;
    let membership = parts::start_membership(settings, &identity, store).await?;
    recovery::carry_out(store, identity.group_id, directory).await?;
    let group = parts::open_group(&identity, store, &peers, peer).await?;
    let site = Site::new(group, store.clone(), peers.clone(), identity.site.as_str());
    let catalog = catalog::open(store, &tls).await?;
    let trust = TrustKeeper::new(identity.node_id, enrolled.sealing_key, tls.trust.validity.clone());
    let interpreter = InterpreterPort::default();
    let effects = parts::open_effects(settings, directory).await?;
    let gossip_keys = watch::Sender::new(identity.keyring());
    let (sites, home) = between_sites::links(&site, &membership, &identity, &tls.trust);
    let outside = Outside {
        site: site.clone(),
        interpreter: interpreter.clone(),
        effects: effects.clone(),
        other_sites: Arc::new(sites.clone()),
    };
    let node = parts::start_node(peer, settings, &identity, boot, outside).await?;
    let links = links::start(settings.actor_links, &identity, &site, &node, &membership, peer).await;

    let catalogs = Between::new(catalog.clone(), identity.site.clone());
    let (reserve_bytes, standing) = (settings.reserve_bytes, standing.clone());
    let (restart, mut restarts) = watch::channel(false);
    let parts = Parts {
        site,
        node,
        membership,
        identity,
        trust,
        tls,
        gossip_keys,
        catalog,
        catalogs,
        interpreter,
        links,
        links_wanted: settings.actor_links,
        sites,
        home,
        reserve_bytes,
        standing,
        restart,
    };
    let runtimes = Runtimes { client: Handle::current(), peer: peer.clone() };
    let serving = async {
        let running = listener.start(parts.services()?, &runtimes)?;
        founding::found_site(&parts, enrolled.foundation.as_ref(), settings).await?;
        Ok(running)
    };
    // Actors live on without their handle.
    let running = serving.await.inspect_err(|_: &Error| parts.node.abandon())?;

    let (state, states) = watch::channel(NodeState::Starting);
    let (load, loads) = watch::channel(Load::default());
    parts.standing.up(NodeFacts::new(&parts, settings.reserve_bytes, states.clone(), loads));
    let tasks = background(around, &parts, observer(&parts, settings, states, load));
    state.send_replace(NodeState::Running);
    welcome::greet(&parts, settings, directory).await;

    let end = wait_for_end(&parts, &mut stop, &mut restarts).await;
    tracing::info!(node = %parts.identity.name, ?end, "stopping");
    state.send_replace(NodeState::Stopping);
    // Without a store nothing that runs can be journaled: it ends with its lease anyway.
    let grace = if store.is_poisoned() { Duration::ZERO } else { settings.grace };
    stop_work(&parts, &effects.port, grace).await;
    running.shutdown(LISTENER_GRACE).await;
    parts.membership.leave().await;
    tasks.iter().for_each(JoinHandle::abort);
    parts.site.group().shutdown().await;
    tracing::info!(node = %parts.identity.name, "stopped");
    Ok(end)
}

/// Waits for what ends a node's run.
async fn wait_for_end(parts: &Parts, stop: &mut watch::Receiver<bool>, restarts: &mut watch::Receiver<bool>) -> End {
    let mut failed = parts.node.failed();
    let (mut status, mut epochs) = (parts.site.group().status(), parts.site.group().status());
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return End::Stopped,
        () = expulsion::noticed(parts) => return End::Expelled,
        _ = restarts.wait_for(|restart| *restart) => return End::Restart,
        _ = status.wait_for(fleet_replication::Status::is_stopped) => return End::Restart,
        _ = epochs.wait_for(|status| status.superseded_by.is_some()) => {}
        _ = failed.wait_for(|failed| *failed) => {
            let is_stopped = parts.site.group().status().borrow().is_stopped();
            return after_failure(parts.site.store().is_poisoned() || is_stopped);
        }
    }
    let later = epochs.borrow().superseded_by;
    if let Some(epoch) = later {
        tracing::warn!(epoch, "the site's group was founded anew elsewhere: coming back to it");
        if let Err(error) = rejoin::mark(parts.site.store(), epoch).await {
            // Whatever stopped the store is met again at the start, and so is the later epoch.
            tracing::warn!(%error, "the later epoch was not noted");
        }
    }
    End::Restart
}

/// What follows when an actor failed too often. Where the store or the group is gone, that is why, and starting again in
/// the process mends it.
fn after_failure(is_ground_gone: bool) -> End {
    if is_ground_gone { End::Restart } else { End::GaveUp }
}

/// How a node's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was told to stop.
    Stopped,
    /// It is to be run again, in this process.
    Restart,
    /// Its actors cannot be kept alive.
    GaveUp,
    /// It was removed from the fleet.
    Expelled,
}

fn observer(
    parts: &Parts,
    settings: &Settings,
    state: watch::Receiver<NodeState>,
    load: watch::Sender<Load>,
) -> Observer {
    Observer {
        site: parts.site.clone(),
        node: parts.node.clone(),
        membership: parts.membership.clone(),
        identity: parts.identity.clone(),
        profile: founding::profile(&parts.identity, settings),
        revocations: parts.tls.revocations.clone(),
        sites: parts.sites.clone(),
        state,
        load,
    }
}

/// The tasks beside the actors; their owner is [`run_on`], which ends them. One that panics is told by the panic hook.
fn background(around: &Around, parts: &Parts, observer: Observer) -> Vec<JoinHandle<()>> {
    // Gossip is a site's own: seeds may be of another site, unless this is the only one that was there to join.
    let seeds = around.settings.seeds.iter().filter(|_| parts.identity.keeps_registry());
    let contacts = parts.identity.contacts.iter().chain(seeds).cloned().collect();
    let mut tasks = vec![
        around.peer.spawn(observer.run()),
        around.peer.spawn(renewal::run(parts.clone(), around.directory.path().to_owned())),
        around.peer.spawn(validity::run(parts.site.clone(), parts.tls.trust.validity.clone())),
        around.peer.spawn(keyring::run(parts.clone(), around.directory.path().to_owned())),
        around.peer.spawn(catalog::keep(parts.clone())),
        around.peer.spawn(catalog::obey(parts.clone())),
        around.peer.spawn(catalog::revoke(parts.clone())),
        around.peer.spawn(removed_sites::run(parts.clone())),
        around.peer.spawn(custody::run(parts.site.clone(), parts.trust.clone())),
        around.peer.spawn(seeds::call(parts.membership.clone(), contacts)),
        around.peer.spawn(crate::sites::run(parts.sites.clone(), parts.site.peers().clone())),
        around.peer.spawn(between_sites::gossip(
            parts.site.clone(),
            parts.membership.clone(),
            parts.sites.clone(),
            Arc::clone(&parts.home),
        )),
        tokio::spawn(counts::run(parts.site.clone())),
    ];
    tasks.extend(topics::start(parts, &around.peer));
    tasks
}

/// Ends the jobs, then what runs on after its task, then the links. A process that does not end in time is ended by its
/// guard with the lease.
async fn stop_work(parts: &Parts, effects: &EffectsPort, grace: Duration) {
    parts.node.stop(grace).await;
    if tokio::time::timeout(DETACHED_GRACE, effects.end_all()).await.is_err() {
        tracing::warn!("processes that nobody awaited do not end in time: their guards end them");
    }
    links::stop(parts.links.as_ref()).await;
    between_sites::stop(&parts.sites).await;
}

/// The clock of everything that is started here.
fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_that_fail_because_the_store_is_gone_start_again_with_it() {
        assert_eq!(after_failure(true), End::Restart);
        assert_eq!(after_failure(false), End::GaveUp);
    }
}

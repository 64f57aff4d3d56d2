//! A node from start to stop. [`run`] reads top to bottom as the order of starting; stopping goes the other way.

mod counts;
mod enroll;
mod facts;
mod founding;
mod links;
mod observer;
mod parts;
pub(crate) mod recovery;
mod rejoin;
mod renewal;
mod signals;
mod welcome;

pub use enroll::Beginning;
pub use signals::{watch_signals, watch_stdin};

use std::sync::Arc;
use std::time::Duration;

use fleet_core::{Error, ErrorKind, SystemClock};
use fleet_membership::NodeState;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::http;
use crate::identity::DataDir;
use crate::listener::{Listener, Runtimes};
use crate::ports::{EffectsPort, InterpreterPort};
use crate::site::Site;
use crate::trust::keeper::TrustKeeper;
use facts::NodeFacts;
use observer::{Load, Observer};
use parts::Parts;

/// How long calls under way may take once the node stops.
const LISTENER_GRACE: Duration = Duration::from_secs(2);
/// How long processes that run on after their tasks may take to be gone once the node stops.
const DETACHED_GRACE: Duration = Duration::from_secs(2);
/// How often histograms are tidied.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Runs a node until `stop` turns true, then stops it in order. Clients' work runs on the caller's runtime, everything
/// between nodes on `peer`.
///
/// # Errors
/// What starting failed with; once started, only an actor that failed too often.
pub async fn run(
    settings: Settings,
    beginning: Beginning,
    peer: Handle,
    metrics: PrometheusHandle,
    mut stop: watch::Receiver<bool>,
) -> Result<End, Error> {
    let directory = DataDir::open(&settings.data_dir)?;
    let http_listener = bind_http(&settings).await?;
    parts::check_free(&settings)?;
    let store = parts::open_store(&directory, settings.cache_bytes).await?;
    let boot = parts::raise_boot_number(&store).await?;
    let enrolled = enroll::enroll(&settings, &beginning, &directory, store.node_id()).await?;
    let identity = enrolled.identity.clone();

    let tls = parts::tls(&enrolled)?;
    let peers = parts::peers(&tls, &peer);
    let listener = Listener::bind(settings.listen, parts::listener_options(&tls, identity.dev))?;
    let membership = parts::start_membership(&settings, &identity, &store).await?;
    recovery::carry_out(&store, identity.group_id, &directory).await?;
    let group = parts::open_group(&identity, &store, &peers, &peer).await?;
    let site = Site::new(group, store.clone(), peers.clone(), identity.site.as_str());
    let trust = TrustKeeper::new(identity.node_id, enrolled.sealing_key);
    let interpreter = InterpreterPort::default();
    let effects = parts::open_effects(&settings, &directory).await?;
    let node = parts::start_node(&peer, &settings, &identity, boot, &site, &interpreter, effects.clone()).await?;
    let links = links::start(&identity, &site, &node, &membership, &peer).await;

    let reserve_bytes = settings.reserve_bytes;
    let (restart, mut restarts) = watch::channel(false);
    let parts = Parts { site, node, membership, identity, trust, tls, interpreter, links, reserve_bytes, restart };
    let runtimes = Runtimes { client: Handle::current(), peer: peer.clone() };
    let running = listener.start(parts.services(), &runtimes)?;
    founding::found_site(&parts, enrolled.authority.as_ref(), &settings, &directory).await?;

    let (state, states) = watch::channel(NodeState::Starting);
    let (load, loads) = watch::channel(Load::default());
    let facts = Arc::new(NodeFacts::new(&parts, settings.reserve_bytes, states.clone(), loads));
    let observer = Observer {
        site: parts.site.clone(),
        node: parts.node.clone(),
        membership: parts.membership.clone(),
        identity: parts.identity.clone(),
        profile: founding::profile(&parts.identity, &settings),
        revocations: parts.tls.revocations.clone(),
        state: states,
        load,
    };
    let tasks = background(&parts, observer, &directory, &peer, metrics.clone());
    let http_task = tokio::spawn(http::serve(http_listener, facts, metrics, stopped(stop.clone())));
    state.send_replace(NodeState::Running);
    welcome::greet(&parts, &settings, &directory).await;

    let end = wait_for_end(&parts, &mut stop, &mut restarts).await;
    tracing::info!(node = %parts.identity.name, ?end, "stopping");
    state.send_replace(NodeState::Stopping);
    stop_work(&parts, &effects.port, settings.grace).await;
    running.shutdown(LISTENER_GRACE).await;
    parts.membership.leave().await;
    tasks.iter().for_each(JoinHandle::abort);
    http_task.abort();
    // Its port must be free before the node may start again.
    let _aborted = http_task.await;
    parts.site.group().shutdown().await;
    store.close();
    tracing::info!(node = %parts.identity.name, "stopped");
    end
}

/// Waits for what ends a node's run.
async fn wait_for_end(
    parts: &Parts,
    stop: &mut watch::Receiver<bool>,
    restarts: &mut watch::Receiver<bool>,
) -> Result<End, Error> {
    let mut failed = parts.node.failed();
    let (mut status, mut epochs) = (parts.site.group().status(), parts.site.group().status());
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return Ok(End::Stopped),
        _ = restarts.wait_for(|restart| *restart) => return Ok(End::Restart),
        _ = status.wait_for(fleet_replication::Status::is_stopped) => return Ok(End::Restart),
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
    Ok(End::Restart)
}

/// What follows when an actor failed too often. Where the store or the group is gone, that is why, and starting again in
/// the process mends it.
fn after_failure(is_ground_gone: bool) -> Result<End, Error> {
    if is_ground_gone { Ok(End::Restart) } else { Err(gave_up()) }
}

/// How a node's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// It is to be run again at once, in this process.
    Restart,
}

fn gave_up() -> Error {
    Error::new(ErrorKind::Internal, "run the node's actors: one failed too often")
        .with_next_step("Start fleetd again; systemd does so by itself. The log above says what failed.")
}

/// The tasks beside the actors; their owner is [`run`], which ends them. One that panics is told by the panic hook.
fn background(
    parts: &Parts,
    observer: Observer,
    directory: &DataDir,
    peer: &Handle,
    metrics: PrometheusHandle,
) -> Vec<JoinHandle<()>> {
    vec![
        peer.spawn(observer.run()),
        peer.spawn(renewal::run(parts.clone(), directory.path().to_owned())),
        tokio::spawn(counts::run(parts.site.clone())),
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP_EVERY).await;
                metrics.run_upkeep();
            }
        }),
    ]
}

/// Ends the jobs, then what runs on after its task, then the links. A process that does not end in time is ended by its
/// guard with the lease.
async fn stop_work(parts: &Parts, effects: &EffectsPort, grace: Duration) {
    parts.node.stop(grace).await;
    if tokio::time::timeout(DETACHED_GRACE, effects.end_all()).await.is_err() {
        tracing::warn!("processes that nobody awaited do not end in time: their guards end them");
    }
    links::stop(parts.links.as_ref()).await;
}

async fn bind_http(settings: &Settings) -> Result<TcpListener, Error> {
    TcpListener::bind(settings.http).await.map_err(|source| {
        Error::new(ErrorKind::Conflict, format!("listen for HTTP on {}", settings.http))
            .with_next_step("Choose another address with --http.")
            .with_source(source)
    })
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|stop| *stop).await;
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
        assert_eq!(after_failure(true).ok(), Some(End::Restart));
        assert!(after_failure(false).is_err());
    }
}

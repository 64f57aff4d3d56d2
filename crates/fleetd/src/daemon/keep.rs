//! Keeps a node running: HTTP first and to the last, the node under it, started again when its store or group failed.
//!
//! What a first start fails with is for the person who started it. After that nothing ends the process but a stop, or
//! actors that cannot be kept alive: a full disk heals when space returns, and `/health` says so meanwhile.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::error::chain;
use fleet_core::{Error, ErrorKind};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::standing::Standing;
use super::{Beginning, End, run};
use crate::config::Settings;
use crate::http::{Bounds, Server, ServerParts};

/// Pause before a node starts again in its process, so that a disk that fails is not hammered.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A run that lasted this long was well: the pauses begin anew.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// How often histograms are tidied.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Runs a node until `stop` turns true, through failures of its store. Clients' work runs on the caller's runtime,
/// everything between nodes on `peer`.
///
/// # Errors
/// What the first start failed with; later only that its actors cannot be kept alive.
pub async fn keep(
    settings: Settings,
    beginning: Beginning,
    peer: Handle,
    metrics: PrometheusHandle,
    stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let standing = Standing::starting();
    let listener = bind_http(&settings).await?;
    let facts = Arc::new(standing.clone());
    let http = Server::start(ServerParts { listener, facts, metrics: metrics.clone(), bounds: Bounds::default() });
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP_EVERY).await;
            metrics.run_upkeep();
        }
    });
    let kept = keep_running(stop.clone(), &standing, || {
        let (settings, beginning) = (settings.clone(), beginning.clone());
        Box::pin(run(settings, beginning, peer.clone(), standing.clone(), stop.clone()))
    })
    .await;
    upkeep.abort();
    http.stop().await;
    kept
}

async fn keep_running<Run, Running>(mut stop: watch::Receiver<bool>, standing: &Standing, run: Run) -> Result<(), Error>
where
    Run: Fn() -> Running,
    Running: Future<Output = Result<End, Error>>,
{
    let mut was_up = false;
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let why = match run().await {
            Ok(End::Stopped) => return Ok(()),
            Ok(End::GaveUp) => return Err(gave_up()),
            Ok(End::Restart) => "the node starts again after its store or its group stopped".to_owned(),
            Err(error) if !was_up => return Err(error),
            Err(error) => chain(&error),
        };
        was_up = true;
        failures = if began.elapsed() >= WELL_AFTER { 0 } else { failures + 1 };
        let pause = pause_after(failures);
        tracing::warn!(why, ?pause, "starting again in this process");
        standing.down(why);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

/// The pause after `failures` short runs in a row: doubling, bounded.
fn pause_after(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

fn gave_up() -> Error {
    Error::new(ErrorKind::Internal, "run the node's actors: one failed too often")
        .with_next_step("Start fleetd again; systemd does so by itself. The log above says what failed.")
}

async fn bind_http(settings: &Settings) -> Result<TcpListener, Error> {
    TcpListener::bind(settings.http).await.map_err(|source| {
        Error::new(ErrorKind::Conflict, format!("listen for HTTP on {}", settings.http))
            .with_next_step("Choose another address with --http.")
            .with_source(source)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::http::FactsSource;

    fn failed() -> Result<End, Error> {
        Err(Error::new(ErrorKind::Internal, "open the store").with_source(std::io::Error::other("no space left")))
    }

    /// Keeps a node whose runs end as `ends` says, the last first; what came of it, and how often it ran.
    async fn kept(ends: Vec<Result<End, Error>>) -> (Result<(), Error>, usize) {
        let (_stop, stopped) = watch::channel(false);
        let (ends, runs) = (Mutex::new(ends), Mutex::new(0));
        let result = keep_running(stopped, &Standing::starting(), || {
            *runs.lock().expect("not poisoned") += 1;
            let end = ends.lock().expect("not poisoned").pop();
            async move { end.expect("it does not run on after its end") }
        })
        .await;
        let runs = *runs.lock().expect("not poisoned");
        (result, runs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_cannot_be_opened_again_is_tried_until_it_can() {
        let mut ends = vec![Ok(End::Stopped)];
        ends.extend((0..20).map(|_| failed()));
        ends.push(Ok(End::Restart));
        let (result, runs) = kept(ends).await;
        assert_eq!((result.map_err(|error| error.message), runs), (Ok(()), 22));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_start_that_fails_is_told_and_so_are_actors_that_cannot_be_kept() {
        assert_eq!(kept(vec![failed()]).await.1, 1);
        let (result, runs) = kept(vec![Ok(End::GaveUp), Ok(End::Restart)]).await;
        assert!(result.is_err() && runs == 2);
    }

    #[tokio::test(start_paused = true)]
    async fn meanwhile_health_says_why_and_a_stop_is_heard() {
        let (stop, stopped) = watch::channel(false);
        let standing = Standing::starting();
        let runs = Mutex::new(0);
        let keeping = keep_running(stopped, &standing, || {
            let mut runs = runs.lock().expect("not poisoned");
            *runs += 1;
            let end = if *runs == 1 { Ok(End::Restart) } else { failed() };
            async move { end }
        });
        let looking = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let document = standing.facts().document();
            stop.send_replace(true);
            serde_json::to_value(document).expect("it is plain data")
        };
        let (kept, document) = tokio::join!(keeping, looking);
        assert!(kept.is_ok(), "a stop ends it");
        assert_eq!((&document["status"], &document["database"]), (&"unhealthy".into(), &"disconnected".into()));
        assert_eq!(document["checks"]["store"]["detail"], "open the store: no space left");
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(pause_after(1), PAUSE_MIN);
        assert_eq!(pause_after(2), PAUSE_MIN * 2);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }
}

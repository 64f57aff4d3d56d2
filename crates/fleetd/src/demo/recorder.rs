//! The demo's outside world: a small HTTP service that takes its time and counts what it saw by `Idempotency-Key`.
//!
//! It is what tells the truth about repeated effects: it shares nothing with the fleet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Keys the recorder remembers at most; more than a demo makes.
const KEYS_MAX: usize = 10_000;

/// What the recorder saw of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Requests that arrived.
    pub(super) started: u32,
    /// Requests that were answered.
    pub(super) answered: u32,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<BTreeMap<(String, String), Seen>>,
}

impl Shared {
    fn note(&self, step: &str, key: &str, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (step.to_owned(), key.to_owned());
        if seen.len() < KEYS_MAX || seen.contains_key(&entry) {
            change(seen.entry(entry).or_default());
        }
    }
}

/// A running recorder; it stops when dropped.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Recorder {
    /// Starts one on a free loopback port; each request is answered after `delay`.
    ///
    /// # Errors
    /// If no port is free.
    pub(super) async fn start(delay: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let routes = Router::new().route("/{step}", post(take)).with_state((Arc::clone(&shared), delay));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "recorder stopped");
            }
        });
        Ok(Self { shared, address, server })
    }

    /// `http://address`, without a slash at the end.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was seen so far, by (step, key).
    pub(super) fn seen(&self) -> BTreeMap<(String, String), Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(
    State((shared, delay)): State<(Arc<Shared>, Duration)>,
    Path(step): Path<String>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("(no key)").to_owned();
    shared.note(&step, &key, |seen| seen.started += 1);
    tokio::time::sleep(delay).await;
    shared.note(&step, &key, |seen| seen.answered += 1);
    axum::Json(serde_json::json!({ "step": step, "done": true }))
}

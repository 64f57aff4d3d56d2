//! The outside world of the tests: an HTTP service in the test's own process that writes down every request.
//!
//! It shares nothing with the fleet and never tells a node anything but its answer, so what it saw is the truth about
//! effects. Routes: `POST /{step}?ms=N` answers after N milliseconds, `POST /fail/{step}` answers 500.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;

/// One request as the outside saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Last part of the path.
    pub step: String,
    /// `Idempotency-Key`, or what a process sent as its key; empty if none.
    pub key: String,
    /// The node that sent this: as the workflow tells (`?node=`), else by the address it came from; empty if neither does.
    pub node: String,
    /// When it arrived.
    pub arrived: Instant,
    /// When it was answered, if it was.
    pub answered: Option<Instant>,
}

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Request>>,
    /// Names of the nodes that have an address of their own.
    names: BTreeMap<IpAddr, String>,
}

/// A running recorder. It lives as long as the test's runtime.
#[derive(Clone)]
pub struct Recorder {
    log: Arc<Log>,
    address: SocketAddr,
}

impl Recorder {
    /// Starts one on a free loopback port.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), BTreeMap::new()).await
    }

    /// Starts one on a free port of `own`, for nodes with the addresses and names `names`.
    pub async fn start_at(own: IpAddr, names: BTreeMap<IpAddr, String>) -> Self {
        let log = Arc::new(Log { names, ..Log::default() });
        let listener = TcpListener::bind((own, 0)).await.expect("the address has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let routes =
            Router::new().route("/{step}", post(take)).route("/fail/{step}", post(fail)).with_state(Arc::clone(&log));
        let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { log, address }
    }

    /// `http://address`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.log.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests of `step`.
    pub fn of_step(&self, step: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.step == step).collect()
    }
}

async fn take(
    State(log): State<Arc<Log>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Path(step): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> axum::Json<serde_json::Value> {
    let node = query.get("node").or_else(|| log.names.get(&from.ip())).cloned().unwrap_or_default();
    let position = note(&log, &step, node, &headers);
    let delay_ms = query.get("ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    if let Some(request) = log.requests.lock().unwrap_or_else(PoisonError::into_inner).get_mut(position) {
        request.answered = Some(Instant::now());
    }
    axum::Json(serde_json::json!({ "step": step, "position": position }))
}

async fn fail(State(log): State<Arc<Log>>, Path(step): Path<String>, headers: HeaderMap) -> StatusCode {
    note(&log, &step, String::new(), &headers);
    StatusCode::INTERNAL_SERVER_ERROR
}

fn note(log: &Log, step: &str, node: String, headers: &HeaderMap) -> usize {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    let mut requests = log.requests.lock().unwrap_or_else(PoisonError::into_inner);
    requests.push(Request { step: step.to_owned(), key, node, arrived: Instant::now(), answered: None });
    requests.len() - 1
}

//! The routes, and how they are served. Plain HTTP: nothing here is secret and nothing here changes anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fleet_core::limits;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::health::{HealthFacts, HealthStatus};

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers under way may take once the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Where the facts come from.
pub trait FactsSource: Send + Sync + 'static {
    /// The facts now. Must not block.
    fn facts(&self) -> HealthFacts;
    /// Sets the gauges that are read only when somebody scrapes.
    fn refresh_gauges(&self);
}

#[derive(Clone)]
struct Shared {
    facts: Arc<dyn FactsSource>,
    metrics: PrometheusHandle,
}

/// The HTTP listener while it serves.
pub struct Server {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// What a server is made of.
pub struct ServerParts {
    /// Where callers come in.
    pub listener: TcpListener,
    /// Where the facts come from.
    pub facts: Arc<dyn FactsSource>,
    /// What renders the metrics.
    pub metrics: PrometheusHandle,
    /// Bounds on callers.
    pub bounds: Bounds,
}

/// Bounds on callers: nothing they send or keep open may cost this process more than these.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once; past it new ones wait.
    pub connections_max: usize,
    /// How long the head of a request may take, the wait for it included.
    pub header_timeout: Duration,
    /// How long a connection may last.
    pub life_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: limits::HTTP_CONNECTIONS_MAX,
            header_timeout: limits::HTTP_HEADER_TIMEOUT,
            life_max: limits::HTTP_CONNECTION_LIFE_MAX,
        }
    }
}

impl Server {
    /// Serves from now on, until it is stopped.
    pub fn start(parts: ServerParts) -> Self {
        let (stop, stopped) = watch::channel(false);
        let routes = Router::new()
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route("/metrics", get(render_metrics))
            .fallback(unknown)
            .layer(middleware::from_fn(count))
            .with_state(Shared { facts: parts.facts, metrics: parts.metrics });
        let task = tokio::spawn(accept(parts.listener, routes, parts.bounds, stopped));
        Self { task, stop }
    }

    /// Lets answers under way end, for a moment, and closes the listener.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // It panics at most, and then it has ended too.
        let _ended = self.task.await;
    }
}

async fn accept(listener: TcpListener, routes: Router, bounds: Bounds, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let stopped = stop.clone();
    loop {
        let is_full = connections.len() >= bounds.connections_max;
        tokio::select! {
            () = told(&mut stop) => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if !is_full => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, routes.clone(), bounds, stopped.clone()));
                }
                Err(error) => {
                    // Out of descriptors, mostly: what is open must end first.
                    tracing::warn!(%error, "an HTTP connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // What does not end in time is cut off with the set.
    let _in_time = tokio::time::timeout(STOP_GRACE, all_ended).await;
}

/// Completes when `stop` turns true, or nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _gone = stop.wait_for(|stop| *stop).await;
}

async fn connection(stream: TcpStream, routes: Router, bounds: Bounds, mut stop: watch::Receiver<bool>) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut serving = std::pin::pin!(serving);
    let ended = async {
        tokio::select! {
            ended = &mut serving => return ended,
            () = told(&mut stop) => serving.as_mut().graceful_shutdown(),
        }
        serving.await
    };
    match tokio::time::timeout(bounds.life_max, ended).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended"),
    }
}

/// Counts each request under its route, never under what the caller typed, so that the labels stay few.
async fn count(request: Request, next: Next) -> Response {
    let endpoint = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = if request.method().is_safe() { request.method().to_string() } else { "other".to_owned() };
    metrics::counter!("casare_api_requests_total", "method" => method, "endpoint" => endpoint).increment(1);
    next.run(request).await
}

async fn health(State(shared): State<Shared>) -> Response {
    let document = shared.facts.facts().document();
    let code =
        if document.status == HealthStatus::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    json(code, &document)
}

async fn ready(State(shared): State<Shared>) -> Response {
    let reasons = shared.facts.facts().reasons_not_ready();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, &serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons }))
}

async fn render_metrics(State(shared): State<Shared>) -> Response {
    shared.facts.refresh_gauges();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render()).into_response()
}

async fn unknown() -> Response {
    json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": "there is /health, /ready and /metrics here" }))
}

fn json(code: StatusCode, document: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(body) => (code, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Facts;

    impl FactsSource for Facts {
        fn facts(&self) -> HealthFacts {
            HealthFacts::default()
        }

        fn refresh_gauges(&self) {}
    }

    const BOUNDS: Bounds =
        Bounds { connections_max: 2, header_timeout: Duration::from_millis(300), life_max: Duration::from_secs(600) };

    async fn server() -> (Server, std::net::SocketAddr) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        (Server::start(ServerParts { listener, facts: Arc::new(Facts), metrics, bounds: BOUNDS }), address)
    }

    async fn get(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn callers_that_say_nothing_take_no_place_for_ever() {
        let (server, address) = server().await;
        let mut silent = Vec::new();
        for _ in 0..BOUNDS.connections_max + 2 {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.write_all(b"GET /hea").await.expect("it reads");
            silent.push(stream);
        }
        let answer = tokio::time::timeout(Duration::from_secs(20), get(address)).await.expect("a place comes free");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_stopped_server_listens_no_more_and_waits_for_no_idle_caller() {
        let (server, address) = server().await;
        let _idle = TcpStream::connect(address).await.expect("it listens");
        tokio::time::timeout(STOP_GRACE + Duration::from_secs(5), server.stop()).await.expect("it stops");
        assert!(TcpStream::connect(address).await.is_err());
    }
}

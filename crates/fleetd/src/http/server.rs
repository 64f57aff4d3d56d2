//! The routes, and how they are served. Plain HTTP: nothing here is secret and nothing here changes anything.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use super::health::{HealthFacts, HealthStatus};

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

/// Serves until `stop` resolves.
///
/// # Errors
/// The listener's error, if it fails for good.
pub async fn serve(
    listener: TcpListener,
    facts: Arc<dyn FactsSource>,
    metrics: PrometheusHandle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(render_metrics))
        .fallback(unknown)
        .layer(middleware::from_fn(count))
        .with_state(Shared { facts, metrics });
    axum::serve(listener, routes).with_graceful_shutdown(stop).await
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

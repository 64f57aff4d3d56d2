//! The side that is asked: what clients of other sites ask about this one is answered by the service that clients of this
//! one ask.

use std::convert::Infallible;

use fleet_api::status::error_of;
use fleet_core::{Error, ErrorKind, SiteName};
use fleet_node::ports::SiteServer;
use fleet_store::record::Payload;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Method, Request, Response};
use tonic::server::NamedService;
use tower::{Service, ServiceExt};

use super::message::{body, only_message, read, refusal};

/// Answers what clients of other sites ask about this one.
pub struct ClientCalls<Inner> {
    inner: Inner,
}

impl<Inner> ClientCalls<Inner> {
    /// By `inner`.
    pub fn new(inner: Inner) -> Self {
        Self { inner }
    }
}

impl<Inner> SiteServer for ClientCalls<Inner>
where
    Inner: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService,
    Inner: Clone + Send + Sync + 'static,
    Inner::Future: Send,
{
    fn answer(&self, from: SiteName, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        let inner = self.inner.clone();
        async move {
            let (method, message) = read(&message)?;
            tracing::debug!(site = %from, method, "a client of another site asks");
            let response = inner.oneshot(call::<Inner>(method, message)?).await;
            let (head, body) = response.unwrap_or_else(|never| match never {}).into_parts();
            refusal(&head.headers)?;
            let collected = body.collect().await.map_err(|status: Status| error_of(&status))?;
            if let Some(trailers) = collected.trailers() {
                refusal(trailers)?;
            }
            only_message(Body::new(Full::new(collected.to_bytes()))).await.map(Payload)
        }
        .boxed()
    }
}

pub(super) fn call<Inner: NamedService>(method: &str, message: &[u8]) -> Result<Request<Body>, Error> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("/{}/{method}", Inner::NAME))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body(message)))
        .map_err(|source| Error::new(ErrorKind::Internal, "pass on a call of another site").with_source(source))
}

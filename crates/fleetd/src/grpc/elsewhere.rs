//! Calls of clients about another site than that of the node they ask: passed on over the link to that site as they are,
//! and answered there by its leader as if they had been asked there. Only what can be asked and answered in one message
//! each, and what a node of another site may be trusted with: a machine that was stolen elsewhere must not make tokens
//! here.
//!
//! A watch is a stream: the node that is asked for one follows the job itself, by such calls (`watch/there`).

mod calls;
mod message;
mod rules;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fleet_api::client::SITE_HEADER;
use fleet_api::status::status_of;
use fleet_core::{Error, ErrorKind, SiteName};
use fleet_node::ports::{SiteTopic, Sites};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::server::NamedService;
use tower::Service;

pub use calls::ClientCalls;

use super::forward::{TIMEOUT_HEADER, parse_timeout};
use message::{good, only_message, write};
use rules::method_of;

/// The method whose answer is a stream, which the node asked makes itself.
const WATCH: &str = "WatchJob";
/// How long the other site may take, where the client does not give up sooner.
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// How long it may take where the client's patience is not known: less than one has for a try, so that it hears which site
/// did not answer.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// Asks other sites what a client of this one wants to know. A cheap handle.
#[derive(Clone)]
pub(super) struct OtherSites {
    sites: Arc<dyn Sites>,
}

impl OtherSites {
    /// Over the links of `sites`.
    pub(super) fn new(sites: Arc<dyn Sites>) -> Self {
        Self { sites }
    }

    /// The answer of `site` to the call of `method` with `request`, as its own client would get it.
    ///
    /// # Errors
    /// That of the site; `Unavailable` that says when it was last heard if there is no link to it.
    pub(super) async fn ask<Asked, Answer>(
        &self,
        site: &SiteName,
        method: &'static str,
        request: &Asked,
    ) -> Result<Answer, Error>
    where
        Asked: Message,
        Answer: Message + Default,
    {
        let answer = self.ask_bytes(site, method_of(method)?, &request.encode_to_vec(), PATIENCE).await?;
        Answer::decode(answer).map_err(|source| {
            Error::new(ErrorKind::Internal, format!("read the answer of site {site} to {method}")).with_source(source)
        })
    }

    async fn ask_bytes(
        &self,
        site: &SiteName,
        method: &str,
        message: &[u8],
        patience: Duration,
    ) -> Result<Bytes, Error> {
        let asked = self.sites.ask(site.clone(), SiteTopic::Client, write(method, message));
        match tokio::time::timeout(patience, asked).await {
            Ok(answer) => Ok(answer?.0),
            Err(_) => {
                let message = format!("ask site {site}: no answer within {patience:?}");
                Err(Error::new(ErrorKind::DeadlineExceeded, message).with_next_step(
                    "It is linked, and slow or busy: try again. `fleetctl site list` shows when it was last heard.",
                ))
            }
        }
    }
}

/// The site that a call with `headers` means, if it is another one than `own`.
///
/// # Errors
/// `InvalidInput` if that is no name of a site.
fn other_site_meant(headers: &HeaderMap, own: &SiteName) -> Result<Option<SiteName>, Error> {
    let Some(named) = headers.get(SITE_HEADER) else { return Ok(None) };
    let wrong = |problem: String| Error::new(ErrorKind::InvalidInput, format!("ask another site: {problem}"));
    let named: SiteName = named.to_str().unwrap_or_default().parse().map_err(wrong)?;
    Ok((named != *own).then_some(named))
}

/// As [`other_site_meant`], for a request that tonic has read.
pub(super) fn other_site_of<T>(request: &tonic::Request<T>, own: &SiteName) -> Result<Option<SiteName>, Error> {
    other_site_meant(request.metadata().as_ref(), own)
}

/// Passes on what is about another site, and has `Inner` answer what is about this one.
#[derive(Clone)]
pub struct ToMeantSite<Inner> {
    own: SiteName,
    others: OtherSites,
    inner: Inner,
}

impl<Inner> ToMeantSite<Inner> {
    /// In front of `inner`, which answers for site `own`, and follows jobs of any site.
    pub fn new(own: SiteName, sites: Arc<dyn Sites>, inner: Inner) -> Self {
        Self { own, others: OtherSites::new(sites), inner }
    }
}

impl<Inner: NamedService> NamedService for ToMeantSite<Inner> {
    const NAME: &'static str = Inner::NAME;
}

impl<Inner> Service<Request<Body>> for ToMeantSite<Inner>
where
    Inner: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    Inner::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_watch = request.uri().path().rsplit('/').next() == Some(WATCH);
        match other_site_meant(request.headers(), &self.own) {
            Ok(Some(site)) if !is_watch => {
                let others = self.others.clone();
                Box::pin(async move {
                    let answer = pass_on(&others, &site, request).await;
                    Ok(answer.map_or_else(|error| status_of(&error).into_http(), |message| good(&message)))
                })
            }
            Ok(_) => Box::pin(self.inner.call(request)),
            Err(error) => Box::pin(std::future::ready(Ok(status_of(&error).into_http()))),
        }
    }
}

async fn pass_on(others: &OtherSites, site: &SiteName, request: Request<Body>) -> Result<Bytes, Error> {
    let method = method_of(request.uri().path())?;
    let timeout = request.headers().get(TIMEOUT_HEADER).and_then(|value| parse_timeout(value.to_str().ok()?));
    let message = only_message(request.into_body()).await?;
    let patience = timeout.map_or(PATIENCE_MAX, |timeout| timeout.min(PATIENCE_MAX));
    others.ask_bytes(site, method, &message, patience).await
}

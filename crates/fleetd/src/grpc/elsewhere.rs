//! Calls of clients about another site than that of the node they ask: passed on over the link to that site as they are,
//! and answered there by its leader as if they had been asked there. Only what can be asked and answered in one message
//! each, and what a node of another site may be trusted with: a machine that was stolen elsewhere must not make tokens
//! here.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fleet_api::client::SITE_HEADER;
use fleet_api::status::{error_of, status_of};
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, SiteName};
use fleet_node::ports::{SiteServer, SiteTopic, Sites};
use fleet_store::record::Payload;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Method, Request, Response};
use tonic::server::NamedService;
use tower::{Service, ServiceExt};

use super::forward::{TIMEOUT_HEADER, parse_timeout};

/// What may be asked of another site.
const PASSED_ON: &[&str] =
    &["GetJob", "ListJobs", "GetJournal", "GetLogs", "ControlJob", "RetryJob", "ListNodes", "GetStatus"];
/// Version of the messages of the topic.
const FORMAT: u8 = 1;
/// How long the other site may take, where the client does not give up sooner.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes before a message in a body of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Passes on what is about another site, and has `Inner` answer what is about this one.
#[derive(Clone)]
pub struct ToMeantSite<Inner> {
    own: SiteName,
    sites: Arc<dyn Sites>,
    inner: Inner,
}

impl<Inner> ToMeantSite<Inner> {
    /// In front of `inner`, which answers for site `own`.
    pub fn new(own: SiteName, sites: Arc<dyn Sites>, inner: Inner) -> Self {
        Self { own, sites, inner }
    }

    /// The site that `request` means, if it is another one.
    fn meant(&self, request: &Request<Body>) -> Result<Option<SiteName>, Error> {
        let Some(named) = request.headers().get(SITE_HEADER) else { return Ok(None) };
        let wrong = |problem: String| Error::new(ErrorKind::InvalidInput, format!("ask another site: {problem}"));
        let named: SiteName = named.to_str().unwrap_or_default().parse().map_err(wrong)?;
        Ok((named != self.own).then_some(named))
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
        match self.meant(&request) {
            Ok(None) => Box::pin(self.inner.call(request)),
            Ok(Some(site)) => {
                let sites = Arc::clone(&self.sites);
                Box::pin(async move {
                    let answer = pass_on(sites.as_ref(), site, request).await;
                    Ok(answer.map_or_else(|error| status_of(&error).into_http(), good))
                })
            }
            Err(error) => Box::pin(std::future::ready(Ok(status_of(&error).into_http()))),
        }
    }
}

async fn pass_on(sites: &dyn Sites, site: SiteName, request: Request<Body>) -> Result<Bytes, Error> {
    let method = method_of(request.uri().path())?;
    let timeout = request.headers().get(TIMEOUT_HEADER).and_then(|value| parse_timeout(value.to_str().ok()?));
    let mut message = BytesMut::new();
    message.put_u8(FORMAT);
    message.put_u8(u8::try_from(method.len()).unwrap_or(u8::MAX));
    message.put_slice(method.as_bytes());
    message.put_slice(&only_message(request.into_body()).await?);
    let asked = sites.ask(site.clone(), SiteTopic::Client, Payload(message.freeze()));
    let patience = timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => Ok(answer?.0),
        Err(_) => {
            Err(Error::new(ErrorKind::DeadlineExceeded, format!("ask site {site}: no answer within {patience:?}")))
        }
    }
}

/// The method of `path`, if another site may be asked.
fn method_of(path: &str) -> Result<&'static str, Error> {
    let named = path.rsplit('/').next().unwrap_or_default();
    PASSED_ON.iter().find(|method| **method == named).copied().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("ask another site: {named} is not passed on between sites"))
            .with_next_step("Ask a node of that site, with --endpoint.")
    })
}

/// The one message in `body`.
async fn only_message(body: Body) -> Result<Bytes, Error> {
    let wrong = || Error::new(ErrorKind::InvalidInput, "read the message of a call between sites");
    let body = Limited::new(body, PREFIX_BYTES + GRPC_MESSAGE_BYTES_MAX).collect().await;
    let mut bytes = body.map_err(|source| wrong().with_source(source))?.to_bytes();
    let prefix = if bytes.len() < PREFIX_BYTES { Bytes::new() } else { bytes.split_to(PREFIX_BYTES) };
    match prefix.as_ref() {
        [0, length @ ..]
            if <[u8; 4]>::try_from(length).is_ok_and(|length| u32::from_be_bytes(length) as usize == bytes.len()) =>
        {
            Ok(bytes)
        }
        _ => Err(wrong()),
    }
}

/// `message` as the body of a call or an answer.
fn body(message: &[u8]) -> Full<Bytes> {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    Full::new(bytes.freeze())
}

/// A good answer with `message`.
fn good(message: Bytes) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Body::new(body(&message).with_trailers(std::future::ready(Some(Ok(trailers))))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// Answers what clients of other sites ask about this one, by the service that clients of this one ask.
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

/// Method and message of what another site asks.
fn read(message: &Payload) -> Result<(&'static str, &[u8]), Error> {
    let malformed = |what: &str| Error::new(ErrorKind::InvalidInput, format!("read a call of another site: {what}"));
    let (named, message) = match message.as_slice() {
        [FORMAT, length, rest @ ..] => {
            rest.split_at_checked(usize::from(*length)).ok_or_else(|| malformed("it is cut short"))?
        }
        [FORMAT] | [] => return Err(malformed("it is cut short")),
        [format, ..] => {
            return Err(Error::new(ErrorKind::Unsupported, format!("read a call of another site of format {format}")));
        }
    };
    Ok((method_of(std::str::from_utf8(named).map_err(|_| malformed("its method has no name"))?)?, message))
}

fn call<Inner: NamedService>(method: &str, message: &[u8]) -> Result<Request<Body>, Error> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("/{}/{method}", Inner::NAME))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body(message)))
        .map_err(|source| Error::new(ErrorKind::Internal, "pass on a call of another site").with_source(source))
}

/// The refusal in `headers`, if there is one.
fn refusal(headers: &HeaderMap) -> Result<(), Error> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != tonic::Code::Ok => Err(error_of(&status)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use fleet_node::ports::KnownSites;
    use tokio::sync::watch;

    use super::*;

    /// Answers with the path and the message, or refuses; and says who asked.
    #[derive(Clone, Default)]
    struct Inner;

    impl NamedService for Inner {
        const NAME: &'static str = "fleet.v1.Fleet";
    }

    impl Service<Request<Body>> for Inner {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            async move {
                let path = request.uri().path().to_owned();
                let message = only_message(request.into_body()).await.unwrap();
                if message.as_ref() == b"refuse" {
                    let error = Error::new(ErrorKind::Conflict, "it is so").with_next_step("Do otherwise.");
                    return Ok(status_of(&error).into_http());
                }
                Ok(good([path.as_bytes(), b" ", &message].concat().into()))
            }
            .boxed()
        }
    }

    /// A link to the one other site there is, which answers as it does.
    struct Link(ClientCalls<Inner>, Mutex<Vec<SiteName>>);

    impl Sites for Link {
        fn ask(
            &self,
            site: SiteName,
            topic: SiteTopic,
            message: Payload,
        ) -> BoxFuture<'static, Result<Payload, Error>> {
            assert_eq!(topic, SiteTopic::Client);
            self.1.lock().unwrap().push(site);
            self.0.answer("north".parse().unwrap(), message)
        }

        fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
            watch::channel(Arc::default()).1
        }
    }

    async fn ask(site: Option<&str>, method: &str, message: &'static [u8]) -> Result<Bytes, Error> {
        let link = Arc::new(Link(ClientCalls::new(Inner), Mutex::default()));
        let mut service = ToMeantSite::new("north".parse().unwrap(), link, Inner);
        let mut request = call::<Inner>(method, message).unwrap();
        if let Some(site) = site {
            request.headers_mut().insert(SITE_HEADER, HeaderValue::from_str(site).unwrap());
        }
        let (head, body) = service.call(request).await.unwrap().into_parts();
        refusal(&head.headers)?;
        only_message(body).await
    }

    #[tokio::test]
    async fn a_call_about_another_site_is_answered_there_and_one_about_this_site_here() {
        for site in [None, Some("north"), Some("south")] {
            assert_eq!(ask(site, "ListJobs", b"x").await.unwrap(), "/fleet.v1.Fleet/ListJobs x", "{site:?}");
        }
        assert_eq!(ask(None, "CreateToken", b"x").await.unwrap(), "/fleet.v1.Fleet/CreateToken x");
        let error = ask(Some("south"), "ListJobs", b"refuse").await.unwrap_err();
        assert_eq!((error.kind, error.next_step.as_deref()), (ErrorKind::Conflict, Some("Do otherwise.")));
        assert_eq!(ask(Some("no site"), "ListJobs", b"x").await.unwrap_err().kind, ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn what_another_site_may_not_ask_is_refused_on_both_sides() {
        for method in ["CreateToken", "RemoveNode", "WatchJob", "Submit", ""] {
            assert_eq!(ask(Some("south"), method, b"x").await.unwrap_err().kind, ErrorKind::Unsupported, "{method}");
        }
        let calls = ClientCalls::new(Inner);
        let asked = |message: &'static [u8]| calls.answer("north".parse().unwrap(), Payload::from(message.to_vec()));
        assert_eq!(asked(b"\x01\x0bCreateTokenx").await.unwrap_err().kind, ErrorKind::Unsupported);
        assert_eq!(asked(b"\x02\x08ListJobsx").await.unwrap_err().kind, ErrorKind::Unsupported);
        for cut in [&b""[..], b"\x01", b"\x01\x09ListJobs"] {
            assert_eq!(asked(cut).await.unwrap_err().kind, ErrorKind::InvalidInput, "{cut:?}");
        }
    }
}

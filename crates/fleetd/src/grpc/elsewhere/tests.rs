//! Calls between two sites that are joined in memory.

use std::sync::Mutex;

use fleet_node::ports::{KnownSites, SiteServer};
use fleet_store::record::Payload;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tonic::codegen::http::HeaderValue;

use super::calls::call;
use super::message::refusal;
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
            Ok(good(&[path.as_bytes(), b" ", &message].concat()))
        }
        .boxed()
    }
}

/// A link to the one other site there is, which answers as it does.
struct Link(ClientCalls<Inner>, Mutex<Vec<SiteName>>);

impl Sites for Link {
    fn ask(&self, site: SiteName, topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
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
async fn a_watch_is_answered_here_whatever_site_it_means_because_it_is_a_stream() {
    assert_eq!(ask(Some("south"), "WatchJob", b"x").await.unwrap(), "/fleet.v1.Fleet/WatchJob x");
    let calls = ClientCalls::new(Inner);
    let asked = calls.answer("north".parse().unwrap(), Payload::from(b"\x01\x08WatchJobx".to_vec())).await;
    assert_eq!(asked.unwrap_err().kind, ErrorKind::Unsupported, "and it does not cross as it is");
}

#[tokio::test]
async fn what_another_site_may_not_ask_is_refused_on_both_sides() {
    for method in ["CreateToken", "RemoveNode", "Submit", ""] {
        assert_eq!(ask(Some("south"), method, b"x").await.unwrap_err().kind, ErrorKind::Unsupported, "{method}");
    }
    // Why is said, and what to do.
    let trust = ask(Some("south"), "RemoveNode", b"x").await.unwrap_err();
    assert!(trust.message.contains("who belongs to that site"), "{trust}");
    assert!(trust.next_step.is_some_and(|next| next.contains("--endpoint")));
    let calls = ClientCalls::new(Inner);
    let asked = |message: &'static [u8]| calls.answer("north".parse().unwrap(), Payload::from(message.to_vec()));
    assert_eq!(asked(b"\x01\x0bCreateTokenx").await.unwrap_err().kind, ErrorKind::Unsupported);
    assert_eq!(asked(b"\x02\x08ListJobsx").await.unwrap_err().kind, ErrorKind::Unsupported);
    for cut in [&b""[..], b"\x01", b"\x01\x09ListJobs"] {
        assert_eq!(asked(cut).await.unwrap_err().kind, ErrorKind::InvalidInput, "{cut:?}");
    }
}

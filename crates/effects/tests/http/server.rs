//! A small HTTP server with one route for each behaviour the client must cope with.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

type Body = BoxBody<Bytes, std::io::Error>;

/// The server; it ends with the test's runtime.
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: watch::Receiver<Vec<String>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let connections = Arc::new(AtomicUsize::new(0));
        let (log, seen) = watch::channel(Vec::new());
        let (log, counter) = (Arc::new(log), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let log = log.clone();
                let service = service_fn(move |request| answer(request, log.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, connections, seen }
    }

    pub(crate) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.borrow().len()
    }

    pub(crate) async fn request_seen(&self, path: &str) {
        let mut seen = self.seen.clone();
        let came = seen.wait_for(|paths| paths.iter().filter(|one| *one == path).count() >= 3);
        tokio::time::timeout(Duration::from_secs(10), came)
            .await
            .expect("the request comes")
            .expect("the server lives");
    }
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<watch::Sender<Vec<String>>>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    log.send_modify(|paths| paths.push(path.clone()));
    Ok(match path.as_str() {
        "/echo" => json_response(&seen(request).await),
        "/json" => typed("application/json", r#"{"a": [1, 2]}"#),
        "/text" => typed("text/plain", "{\"a\": not json}"),
        "/bytes" => typed("application/octet-stream", &b"\x00\xff\x80"[..]),
        "/empty" => status(204),
        "/redirect" => redirect("/json"),
        "/loop" => redirect("/loop"),
        "/away" => redirect(&under_another_name(&request)),
        "/digest" => digest(request).await,
        "/hang" => std::future::pending().await,
        "/endless" => streamed(None),
        "/cut" => streamed(Some(3)),
        other => match (other.strip_prefix("/status/"), other.strip_prefix("/large/")) {
            (Some(number), _) => status(number.parse().expect("a status")),
            (_, Some(number)) => typed("text/plain", vec![b'x'; number.parse().expect("a size")]),
            _ => status(404),
        },
    })
}

async fn seen(request: Request<Incoming>) -> Value {
    let (head, body) = request.into_parts();
    let mut headers = serde_json::Map::new();
    for name in head.headers.keys() {
        let values: Vec<_> = head.headers.get_all(name).iter().map(|value| value.to_str().expect("ASCII")).collect();
        headers.insert(name.to_string(), json!(values.join(", ")));
    }
    let body = body.collect().await.expect("a body").to_bytes();
    let uri = head.uri.to_string();
    json!({"method": head.method.as_str(), "uri": uri, "headers": headers, "body": String::from_utf8_lossy(&body)})
}

/// Wants the digest (MD5, `qop=auth`) of user `Mufasa` with password `Circle of Life`.
async fn digest(request: Request<Incoming>) -> Response<Body> {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let field = |name: &str| {
        let start = header.find(&format!("{name}="))? + name.len() + 1;
        Some(header[start..].split(',').next()?.trim_matches('"').to_owned())
    };
    let client_nonce = field("cnonce").unwrap_or_default();
    let hash = |text: String| -> String {
        use md5::Digest;
        md5::Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let user = hash("Mufasa:here:Circle of Life".to_owned());
    let target = hash(format!("{}:{}", request.method(), request.uri()));
    let expected = hash(format!("{user}:n0nce:00000001:{client_nonce}:auth:{target}"));
    if field("response") == Some(expected) {
        return json_response(&seen(request).await);
    }
    let challenge = r#"Digest realm="here", nonce="n0nce", qop="auth", algorithm=MD5"#;
    let refusal = Response::builder().status(401).header("www-authenticate", challenge);
    refusal.body(full(Bytes::new())).expect("a response")
}

/// Pieces of 64 KiB without an announced length: without end, or cut off after `pieces`.
fn streamed(pieces: Option<usize>) -> Response<Body> {
    let piece = || Ok(Frame::data(Bytes::from(vec![b'x'; 64 * 1024])));
    let count = pieces.unwrap_or(usize::MAX);
    let end = futures_util::stream::once(async { Err(std::io::Error::other("cut")) });
    let body = StreamBody::new(futures_util::stream::repeat_with(piece).take(count).chain(end));
    Response::new(BodyExt::boxed(body))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn typed(content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder().header("content-type", content_type).body(full(body.into())).expect("a response")
}

fn json_response(value: &Value) -> Response<Body> {
    typed("application/json", value.to_string())
}

fn status(number: u16) -> Response<Body> {
    Response::builder().status(number).body(full(Bytes::new())).expect("a response")
}

/// The URI of `/json` on this server, called `localhost`.
fn under_another_name(request: &Request<Incoming>) -> String {
    let host = request.headers().get("host").and_then(|value| value.to_str().ok()).expect("a host");
    let (_, port) = host.rsplit_once(':').expect("a port");
    format!("http://localhost:{port}/json")
}

fn redirect(target: &str) -> Response<Body> {
    Response::builder().status(302).header("location", target).body(full(Bytes::new())).expect("a response")
}

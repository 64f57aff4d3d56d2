//! Bytes as they are: plain HTTP, TCP, TLS and gRPC without the manners of the real clients.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fleet_api::connect::{Connector, Established, NodeStream};
use fleet_api::status::error_of;
use fleet_api::tls::{CertificateCell, ClientTls};
use fleet_core::{Error, ErrorKind};
use http_body_util::{BodyExt, Full};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http::Request;
use tonic::transport::Channel;

/// How long a node may take to answer or to hang up: longer than a handshake may take.
pub const ANSWER_BOUND: Duration = Duration::from_secs(15);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// What a gRPC request says of its content.
pub const GRPC: &str = "application/grpc";

/// What came back for `sent` on `port`, until the other side hung up; an error if it did not.
pub async fn tcp(port: u16, sent: &[u8]) -> Result<Vec<u8>, String> {
    tcp_at(SocketAddr::from(([127, 0, 0, 1], port)), sent).await
}

/// The same at `address`.
pub async fn tcp_at(address: SocketAddr, sent: &[u8]) -> Result<Vec<u8>, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        // A node may hang up before it has read everything: what it said until then counts.
        let _ = stream.write_all(sent).await;
        let mut answer = Vec::new();
        let _ = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
        Ok(answer)
    };
    tokio::time::timeout(ANSWER_BOUND, exchange).await.map_err(|_| "the connection stays open".to_owned())?
}

/// Status and body of `GET path` on the HTTP port.
pub async fn http_get(port: u16, path: &str) -> Result<(u16, String), String> {
    http_get_at(SocketAddr::from(([127, 0, 0, 1], port)), path).await
}

/// The same at `address`.
pub async fn http_get_at(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8_lossy(&tcp_at(address, request.as_bytes()).await?).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer}"))?;
    Ok((http_status(head).ok_or_else(|| head.to_owned())?, body.to_owned()))
}

/// The status in the first line of an HTTP/1.1 answer.
pub fn http_status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.trim().parse().ok()
}

/// The sum of the counter whose line in `/metrics` begins with `name`.
pub async fn metric(port: u16, name: &str) -> Result<f64, String> {
    metric_at(SocketAddr::from(([127, 0, 0, 1], port)), name).await
}

/// The same at `address`.
pub async fn metric_at(address: SocketAddr, name: &str) -> Result<f64, String> {
    let (_, text) = http_get_at(address, "/metrics").await?;
    Ok(text
        .lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .fold(0.0, |sum, value: f64| sum + value))
}

/// A TLS stream to `address` under `tls` with the protocol `alpn`.
pub async fn tls_stream(tls: &ClientTls, alpn: &[u8], address: &str) -> Result<NodeStream, Error> {
    Connector::new(tls.clone(), alpn, Established::Handshake)?.with_timeout(ANSWER_BOUND).dial(address).await
}

/// A gRPC channel to `address` under `tls` with the protocol `alpn`.
pub async fn channel(tls: &ClientTls, alpn: &[u8], address: &str) -> Result<Channel, Error> {
    Connector::new(tls.clone(), alpn, Established::FirstByte)?.channel(address).await
}

/// `message` in a gRPC frame.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a message fits a frame");
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}

/// Posts `body` to `path` as `content_type`, and gives the error of the answer; no error if it is a good one.
pub async fn post(channel: &Channel, path: &str, content_type: &str, body: Vec<u8>) -> Result<(), Error> {
    let exchange = async {
        let mut channel = channel.clone();
        std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(unreachable)?;
        let request = Request::post(format!("http://node{path}"))
            .header("content-type", content_type)
            .header("te", "trailers")
            .body(Body::new(Full::new(Bytes::from(body))))
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let (head, body) = channel.call(request).await.map_err(unreachable)?.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return outcome(&status);
        }
        if !head.status.is_success() {
            return Err(Error::new(ErrorKind::InvalidInput, format!("HTTP {}", head.status)));
        }
        let body = body.collect().await.map_err(|status| error_of(&status))?;
        match body.trailers().and_then(Status::from_header_map) {
            Some(status) => outcome(&status),
            None => Err(Error::new(ErrorKind::Internal, "the answer has no status")),
        }
    };
    let late = || Error::new(ErrorKind::DeadlineExceeded, "no answer in time");
    tokio::time::timeout(ANSWER_BOUND, exchange).await.map_err(|_| late())?
}

fn outcome(status: &Status) -> Result<(), Error> {
    if status.code() == tonic::Code::Ok { Ok(()) } else { Err(error_of(status)) }
}

fn unreachable(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, "call the node").with_source(source)
}

/// The certificate of the node with the data directory `directory`, with its key.
pub fn certificate_of_node(directory: &std::path::Path) -> CertificateCell {
    let text = std::fs::read(directory.join("node.pem")).expect("a node keeps its key");
    let key = PrivateKeyDer::from_pem_slice(&text).expect("it begins with its key");
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().expect("certificates follow");
    CertificateCell::new(chain, key).expect("they belong together")
}

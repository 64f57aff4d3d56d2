//! Bytes on the two TCP ports: what is no TLS, no HTTP, no gRPC, or no message.

use fleet_api::tls::{ALPN_CLIENT, ALPN_PEER, ClientTls};
use fleet_core::ErrorKind::{self, Internal, InvalidInput, Unsupported};
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::raw;
use crate::stage::Stage;

/// Name, path, content type, body, kind, and what names the place.
type Call = (&'static str, &'static str, &'static str, Vec<u8>, ErrorKind, &'static str);

/// The first byte of a TLS alert.
const ALERT: u8 = 21;

pub(crate) async fn judge(stage: &mut Stage) {
    judge_tls(stage).await;
    judge_http(stage).await;
    judge_grpc(stage).await;
}

async fn judge_tls(stage: &mut Stage) {
    let port = stage.cluster.nodes[0].port;
    let rows: [(&str, &[u8]); 5] = [
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"),
        ("plain HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("another service", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("a handshake of nonsense", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff"),
        ("a record longer than may be", b"\x16\x03\x03\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0"),
    ];
    for (name, sent) in rows {
        let verdict = match raw::tcp(port, sent).await {
            Ok(answer) if answer.is_empty() || answer[0] == ALERT => Ok(()),
            Ok(answer) => Err(format!("no alert but {answer:?}")),
            Err(error) => Err(error),
        };
        stage.judged(&format!("TLS port: {name}"), verdict).await;
    }
    let verdict = no_http2_inside_tls(stage).await;
    stage.judged("TLS port: HTTP/1.1 inside TLS", verdict).await;
}

async fn no_http2_inside_tls(stage: &Stage) -> Result<(), String> {
    let tls = stage.credential().client_tls().map_err(|error| error.to_string())?;
    let mut stream = raw::tls_stream(&tls, ALPN_CLIENT, &stage.endpoint()).await.map_err(|error| error.to_string())?;
    let sent = b"GET /fleet.v1.Fleet/GetStatus HTTP/1.1\r\nHost: node\r\n\r\n";
    let exchange = async {
        let _ = stream.write_all(sent).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(raw::ANSWER_BOUND, exchange).await.map_err(|_| "the connection stays open".to_owned())
}

async fn judge_http(stage: &mut Stage) {
    let port = stage.cluster.nodes[0].http_port;
    let close = "Host: node\r\nConnection: close\r\n\r\n";
    let long = format!("GET /health HTTP/1.1\r\nX: {}\r\n{close}", "x".repeat(1 << 20));
    let rows: [(&str, String, u16); 7] = [
        ("an unknown path", format!("GET /jobs HTTP/1.1\r\n{close}"), 404),
        ("a path out of the tree", format!("GET /../../etc/passwd HTTP/1.1\r\n{close}"), 404),
        ("another method", format!("POST /health HTTP/1.1\r\nContent-Length: 0\r\n{close}"), 405),
        ("no method", format!("/health\r\n{close}"), 400),
        ("another version", format!("GET /health HTTP/7.3\r\n{close}"), 400),
        ("headers without end", long, 431),
        ("a header of nonsense", format!("GET /health HTTP/1.1\r\n\u{0}\u{1}: x\r\n{close}"), 400),
    ];
    for (name, sent, expected) in rows {
        let answer = raw::tcp(port, sent.as_bytes()).await;
        let verdict = answer.and_then(|answer| {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if raw::http_status(&text) == Some(expected) { Ok(()) } else { Err(format!("not {expected} but {text}")) }
        });
        stage.judged(&format!("HTTP port: {name}"), verdict).await;
    }
}

/// What is no message is refused by the transport, which knows no better kind than `internal`; it names the field.
async fn judge_grpc(stage: &mut Stage) {
    let operator = stage.credential().client_tls().expect("it is sound");
    let channel = raw::channel(&operator, ALPN_CLIENT, &stage.endpoint()).await.expect("an operator may connect");
    let submit = "/fleet.v1.Fleet/Submit";
    let large = raw::frame(&vec![0; GRPC_MESSAGE_BYTES_MAX + 1]);
    let rows: [Call; 9] = [
        ("an unknown service", "/fleet.v9.Fleet/Submit", raw::GRPC, raw::frame(b""), Unsupported, ""),
        ("an unknown method", "/fleet.v1.Fleet/Destroy", raw::GRPC, raw::frame(b""), Unsupported, ""),
        ("a service of nodes", "/fleet.peer.v1.Peer/Group", raw::GRPC, raw::frame(b""), Unsupported, ""),
        ("a body that is no message", submit, raw::GRPC, raw::frame(b"\xff\xff\xff\xff"), Internal, "decode"),
        ("a field cut off", submit, raw::GRPC, raw::frame(b"\x0a\x10\x01"), Internal, "SubmitRequest.job_id"),
        ("a field of another type", submit, raw::GRPC, raw::frame(b"\x08\x01"), Internal, "wire type"),
        ("text that is none", submit, raw::GRPC, raw::frame(b"\x22\x02\xff\xfe"), Internal, "not UTF-8"),
        ("a message too large", submit, raw::GRPC, large, InvalidInput, "too large"),
        ("another content", submit, "text/html", b"<html>".to_vec(), Internal, "compression flag"),
    ];
    for (name, path, content, body, kind, word) in rows {
        let answer = raw::post(&channel, path, content, body).await;
        stage.row(&format!("gRPC: {name}"), answer, kind, word).await;
    }
    let node = raw::certificate_of_node(&stage.cluster.nodes[0].data_dir);
    let node = ClientTls { certificate: Some(node), ..stage.tls() };
    let channel = raw::channel(&node, ALPN_PEER, &stage.endpoint()).await.expect("a node may connect");
    let answer = raw::post(&channel, "/fleet.peer.v1.Peer/Group", raw::GRPC, raw::frame(b"\x0a\x03\x63\x00\x00")).await;
    stage.row("gRPC: a group message of an unknown format", answer, InvalidInput, "group").await;
    let answer = raw::post(&channel, "/fleet.peer.v1.Peer/Obey", raw::GRPC, raw::frame(b"")).await;
    stage.row("gRPC: an unknown method among nodes", answer, Unsupported, "").await;
    let answer = raw::post(&channel, "/fleet.v1.Fleet/RecoverSite", raw::GRPC, raw::frame(b"")).await;
    stage.row("gRPC: a recovery by a node", answer, ErrorKind::PermissionDenied, "may not call").await;
    let anonymous = raw::channel(&stage.tls(), ALPN_CLIENT, &stage.endpoint()).await.expect("anyone may connect");
    let answer = raw::post(&anonymous, submit, raw::GRPC, raw::frame(b"")).await;
    stage.row("gRPC: a submit by nobody", answer, ErrorKind::Unauthenticated, "credential").await;
}

//! The ports: what can be sent to them without speaking their protocol, or with speaking it badly.

use std::time::Duration;

use fleet_api::connect::{Connector, Established};
use fleet_api::tls::{ALPN_ACTORS, ALPN_CLIENT, ALPN_PEER, ClientTls, Trust};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::harness::cluster::Cluster;
use crate::harness::raw;
use crate::harness::seed::Random;

/// How long a node may take to hang up on one who has said all he will say.
const END_BOUND: Duration = Duration::from_secs(20);
/// Largest packet and largest piece of a stream that is thrown, bytes.
const PACKET_BYTES_MAX: usize = 1_500;
const PIECE_BYTES_MAX: usize = 4_096;
/// Bytes of a gossip packet before its sealed part.
const GOSSIP_HEADER_BYTES: usize = 39;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Packets of noise, and packets that look like ours until they are opened.
pub(crate) async fn gossip(cluster: &Cluster, random: &mut Random, throws: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a free port");
    for throw in 0..throws {
        let mut packet = random.bytes(PACKET_BYTES_MAX);
        if throw % 2 == 0 {
            packet.resize(packet.len().max(GOSSIP_HEADER_BYTES), 0);
            packet[..3].copy_from_slice(&[1, 0, 1]);
        }
        socket.send_to(&packet, cluster.nodes[0].endpoint()).await.expect("loopback takes packets");
    }
}

/// Says `sent` and no more, and waits until the other side hangs up.
async fn throw(mut stream: impl AsyncRead + AsyncWrite + Unpin, sent: &[u8], what: &str) {
    let exchange = async {
        // The node may hang up before it heard everything: that is its right.
        let _ = stream.write_all(sent).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    };
    let ended = tokio::time::timeout(END_BOUND, exchange).await;
    assert!(ended.is_ok(), "{what}: the node holds the connection after {sent:?}");
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.expect("the node listens")
}

/// The first bytes of a real client, caught by a listener of our own.
async fn client_hello(alpn: &[u8]) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let connector = Connector::new(ClientTls::new(Trust::Shown), alpn, Established::Handshake).expect("it is sound");
    let dialling = tokio::spawn(async move { connector.dial(&address).await.map(drop) });
    let (mut stream, _) = listener.accept().await.expect("the client connects");
    let mut hello = vec![0; PIECE_BYTES_MAX];
    let length = stream.read(&mut hello).await.expect("the client speaks first");
    hello.truncate(length);
    dialling.abort();
    hello
}

/// Noise, and damaged first messages of real clients.
pub(crate) async fn tls(cluster: &Cluster, random: &mut Random, throws: usize) {
    let port = cluster.nodes[0].port;
    let hellos = [client_hello(ALPN_CLIENT).await, client_hello(ALPN_PEER).await];
    for number in 0..throws {
        let sent = match number % 4 {
            0 => random.bytes(PIECE_BYTES_MAX),
            1 => [&[22, 3, 1], random.bytes(PIECE_BYTES_MAX).as_slice()].concat(),
            kind => random.mutated(&hellos[kind - 2]),
        };
        throw(connect(port).await, &sent, "TLS").await;
    }
}

/// Noise behind a good handshake in each protocol: as it is, after the first words of HTTP/2, and in a frame of actors.
pub(crate) async fn inside_tls(cluster: &Cluster, random: &mut Random, throws: usize) {
    let node = &cluster.nodes[0];
    let anyone = ClientTls::new(Trust::Shown);
    let of_node = ClientTls { certificate: Some(raw::certificate_of_node(&node.data_dir)), ..anyone.clone() };
    for number in 0..throws {
        let (tls, alpn) = match number % 3 {
            0 => (&anyone, ALPN_CLIENT),
            1 => (&of_node, ALPN_PEER),
            _ => (&of_node, ALPN_ACTORS),
        };
        let mut sent = random.bytes(PIECE_BYTES_MAX);
        match random.below(3) {
            0 => sent = random.mutated(&[HTTP2_PREFACE, &sent].concat()),
            1 => sent = [&(sent.len() as u64).to_be_bytes(), sent.as_slice()].concat(),
            _ => {}
        }
        let stream = raw::tls_stream(tls, alpn, &node.endpoint()).await.expect("the handshake is good");
        throw(stream, &sent, "inside TLS").await;
    }
}

/// Noise and damaged requests.
pub(crate) async fn http(cluster: &Cluster, random: &mut Random, throws: usize) {
    let port = cluster.nodes[0].http_port;
    let requests = [
        "GET /health HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HEAD /ready?x=%ff%00 HTTP/1.0\r\nContent-Length: 18446744073709551615\r\n\r\n",
    ];
    for number in 0..throws {
        let sent = match number % 4 {
            0 => random.bytes(PIECE_BYTES_MAX),
            kind => random.mutated(requests[kind - 1].as_bytes()),
        };
        throw(connect(port).await, &sent, "HTTP").await;
    }
}

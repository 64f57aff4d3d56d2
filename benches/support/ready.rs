//! Waiting for a node's `/ready`, looked at every millisecond.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::cluster::START_BOUND;
use crate::harness::node::TestNode;

const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Waits until `node` says that it is ready for work.
///
/// # Panics
/// If it does not within [`START_BOUND`].
pub async fn until_ready(node: &TestNode) {
    let deadline = Instant::now() + START_BOUND;
    while !matches!(ask(node.http_port).await, Ok(true)) {
        assert!(Instant::now() < deadline, "{} is not ready:\n{}", node.name, node.log_tail());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ask(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

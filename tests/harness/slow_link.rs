//! A long and narrow line for TCP, in the test's own process and without root: a relay that holds bytes up as distance and
//! a bound on the rate do. Who is to be reached over it advertises [`SlowLink::address`] instead of its own.
//!
//! All connections over it share one rate and one buffer for each direction, as on a real line; what does not fit into the
//! buffer is not read, so that the sender's TCP pushes back. Cut, it moves nothing and breaks nothing, as a network does
//! that loses every packet: what was under way arrives once it is healed. It loses nothing else, and passes no UDP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Most bytes that are moved at once: about one packet.
const PIECE_BYTES: usize = 1_400;

/// How long and how narrow a line is, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How long a byte takes from one end to the other.
    pub delay: Duration,
    /// How many bytes pass in a second; none for no bound.
    pub bytes_per_second: Option<u64>,
    /// How many bytes may wait or be on their way; for a full line at least the rate times the delay.
    pub buffer_bytes: u32,
}

/// One direction of the line.
struct Direction {
    shape: Shape,
    /// When the last byte that was taken has entered the line.
    free_at: Mutex<Instant>,
    room: Arc<Semaphore>,
    passed_bytes: AtomicU64,
}

/// Bytes on their way, and when they arrive; no bytes are the end of the stream.
struct Piece {
    arrives: Instant,
    bytes: Vec<u8>,
    /// Their place in the buffer.
    _room: Option<OwnedSemaphorePermit>,
}

impl Direction {
    fn new(shape: Shape) -> Arc<Self> {
        assert!(shape.buffer_bytes as usize >= PIECE_BYTES, "a line holds at least one piece");
        let room = Arc::new(Semaphore::new(shape.buffer_bytes as usize));
        Arc::new(Self { shape, free_at: Mutex::new(Instant::now()), room, passed_bytes: AtomicU64::new(0) })
    }

    /// Lets `count` bytes in behind all others; gives when the last of them arrives.
    fn enter(&self, count: usize) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let takes = self.shape.bytes_per_second.map(|rate| Duration::from_secs_f64(count as f64 / rate as f64));
        *free_at = (*free_at).max(Instant::now()) + takes.unwrap_or_default();
        *free_at + self.shape.delay
    }
}

/// The line. It ends, with all connections over it, when it is dropped.
pub struct SlowLink {
    address: SocketAddr,
    there: Arc<Direction>,
    back: Arc<Direction>,
    is_cut: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl SlowLink {
    /// A line to `target`, with its near end on a free port of loopback.
    pub async fn start(target: SocketAddr, shape: Shape) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        Self::start_on(listener, target, shape)
    }

    /// The same, with its near end at `listener`.
    pub fn start_on(listener: TcpListener, target: SocketAddr, shape: Shape) -> Self {
        let address = listener.local_addr().expect("a bound listener has an address");
        let (there, back, is_cut) = (Direction::new(shape), Direction::new(shape), watch::Sender::new(false));
        let line = Line { target, there: Arc::clone(&there), back: Arc::clone(&back), is_cut: is_cut.subscribe() };
        let accepting = tokio::spawn(line.accept(listener));
        Self { address, there, back, is_cut, accepting }
    }

    /// Where its near end listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing moves, and nobody is told.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// All moves again.
    pub fn heal(&self) {
        self.is_cut.send_replace(false);
    }

    /// How many bytes arrived so far: at the target, and from there.
    pub fn passed_bytes(&self) -> (u64, u64) {
        (self.there.passed_bytes.load(Ordering::Relaxed), self.back.passed_bytes.load(Ordering::Relaxed))
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Line {
    target: SocketAddr,
    there: Arc<Direction>,
    back: Arc<Direction>,
    is_cut: watch::Receiver<bool>,
}

impl Line {
    /// Takes connections, and owns them: they end with it.
    async fn accept(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(self.clone().connect(near));
        }
    }

    /// One connection, until both sides have ended it or one of them broke it.
    async fn connect(mut self, near: TcpStream) {
        let round_trip = self.there.shape.delay + self.back.shape.delay;
        // As a handshake, which the near end believes to be over already.
        sleep_until(Instant::now() + round_trip).await;
        if self.is_cut.wait_for(|is_cut| !is_cut).await.is_err() {
            return;
        }
        let Ok(far) = TcpStream::connect(self.target).await else { return };
        // A piece is sent on when it arrives, not when a second one does.
        if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
            return;
        }
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        let there = carry(near_read, far_write, self.there, self.is_cut.clone());
        let back = carry(far_read, near_write, self.back, self.is_cut);
        let _ = tokio::try_join!(there, back);
    }
}

/// Moves bytes in one direction of a connection until the end of the stream.
async fn carry(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    direction: Arc<Direction>,
    is_cut: watch::Receiver<bool>,
) -> std::io::Result<()> {
    // How much is under way is bounded in bytes, by the room of the direction.
    let (pieces, arriving) = mpsc::channel(direction.shape.buffer_bytes as usize);
    tokio::try_join!(take(from, &direction, pieces), deliver(to, &direction, arriving, is_cut)).map(|_| ())
}

async fn take(mut from: OwnedReadHalf, direction: &Direction, pieces: mpsc::Sender<Piece>) -> std::io::Result<()> {
    let mut buffer = [0; PIECE_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let permits = u32::try_from(count).expect("a piece is small");
        let room = Arc::clone(&direction.room).acquire_many_owned(permits).await.ok();
        let piece = Piece { arrives: direction.enter(count), bytes: buffer[..count].to_vec(), _room: room };
        if pieces.send(piece).await.is_err() || count == 0 {
            return Ok(());
        }
    }
}

async fn deliver(
    mut to: OwnedWriteHalf,
    direction: &Direction,
    mut arriving: mpsc::Receiver<Piece>,
    mut is_cut: watch::Receiver<bool>,
) -> std::io::Result<()> {
    while let Some(piece) = arriving.recv().await {
        sleep_until(piece.arrives).await;
        if is_cut.wait_for(|is_cut| !is_cut).await.is_err() || piece.bytes.is_empty() {
            break;
        }
        to.write_all(&piece.bytes).await?;
        direction.passed_bytes.fetch_add(piece.bytes.len() as u64, Ordering::Relaxed);
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(60);
    const DELAY: Duration = Duration::from_millis(50);

    /// Where whatever is sent comes back.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn receive(stream: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = tokio::time::timeout(BOUND, stream.read_exact(&mut bytes)).await;
        read.expect("it arrives in time").expect("the line does not break");
        bytes
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_and_neither_sooner_nor_faster_than_the_line_lets_it() {
        let shape = Shape { delay: DELAY, bytes_per_second: Some(64_000), buffer_bytes: 16_384 };
        let link = SlowLink::start(echo().await, shape).await;
        let mut stream = TcpStream::connect(link.address()).await.expect("the near end listens");
        let sent = Instant::now();
        stream.write_all(b"far?").await.expect("it is open");
        assert_eq!(receive(&mut stream, 4).await, b"far?");
        assert!(sent.elapsed() >= DELAY * 4, "a handshake and a round trip took {:?}", sent.elapsed());

        let bytes: Vec<u8> = (0..48_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (mut from, mut to) = stream.into_split();
        let (sent, expected) = (Instant::now(), bytes.clone());
        let sending = tokio::spawn(async move {
            to.write_all(&bytes).await.expect("it is open");
            to.shutdown().await.expect("it is open");
        });
        let mut echoed = Vec::new();
        let read = tokio::time::timeout(BOUND, from.read_to_end(&mut echoed)).await;
        read.expect("it ends in time").expect("the line does not break");
        sending.await.expect("all could be sent");
        assert!(echoed == expected, "{} bytes came back, of {}", echoed.len(), expected.len());
        assert!(sent.elapsed() >= Duration::from_millis(750), "48 kB at 64 kB/s took {:?}", sent.elapsed());
        assert_eq!(link.passed_bytes(), (48_004, 48_004));
    }

    #[tokio::test]
    async fn a_cut_line_moves_nothing_and_goes_on_where_it_was() {
        let shape = Shape { delay: Duration::from_millis(5), bytes_per_second: None, buffer_bytes: 4_096 };
        let link = SlowLink::start(echo().await, shape).await;
        let mut stream = TcpStream::connect(link.address()).await.expect("the near end listens");
        stream.write_all(b"one").await.expect("it is open");
        assert_eq!(receive(&mut stream, 3).await, b"one");
        link.cut();
        stream.write_all(b"two").await.expect("nobody is told");
        let mut late = TcpStream::connect(link.address()).await.expect("nobody is told");
        late.write_all(b"late").await.expect("nobody is told");
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut byte)).await;
        assert!(early.is_err(), "nothing moves");
        assert_eq!(link.passed_bytes(), (3, 3));
        link.heal();
        assert_eq!(receive(&mut stream, 3).await, b"two");
        assert_eq!(receive(&mut late, 4).await, b"late");
    }

    #[tokio::test]
    async fn a_line_whose_end_reads_nothing_takes_no_more_than_its_buffer() {
        let shape = Shape { delay: Duration::ZERO, bytes_per_second: None, buffer_bytes: 8_192 };
        let link = SlowLink::start(echo().await, shape).await;
        let mut stream = TcpStream::connect(link.address()).await.expect("the near end listens");
        stream.write_all(b"one").await.expect("it is open");
        assert_eq!(receive(&mut stream, 3).await, b"one");
        link.cut();
        // The buffers of the kernel take some of it; the line takes what it has room for.
        let sending = tokio::time::timeout(Duration::from_millis(200), stream.write_all(&vec![0; 64 << 20])).await;
        assert!(sending.is_err(), "a cut line does not take 64 MiB");
        let (room, held) = (link.there.room.available_permits(), link.passed_bytes());
        assert!(room < PIECE_BYTES, "the buffer is full, but for {room} bytes");
        assert_eq!(held, (3, 3));
    }
}

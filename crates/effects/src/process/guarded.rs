//! The starter's side of a guard: its process, its pipes, and what it said.

use std::io;
use std::path::Path;

use fleet_core::BootInstant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::guard::protocol::{Decoder, Ending, FromGuard, Launch, Stream, ToGuard, encode_to_guard};
use crate::{guard, platform};

/// Bytes read at once from a guard.
const READ_BYTES: usize = 16 * 1024;

/// One guard and what its child wrote. Dropping it closes the pipe, and so ends the child.
#[derive(Debug)]
pub(crate) struct Guarded {
    process: Child,
    orders: ChildStdin,
    reports: ChildStdout,
    buffer: Box<[u8]>,
    decoder: Decoder,
    process_id: Option<i32>,
    /// What the child wrote to standard output so far.
    pub(crate) stdout: Vec<u8>,
    /// What the child wrote to standard error so far.
    pub(crate) stderr: Vec<u8>,
}

/// What a guard said, its child's output apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The child runs.
    Started,
    /// The child and everything that came of it is gone.
    Ended(Ending),
}

impl Guarded {
    /// Starts a guard, waits until it holds its lock, and has it start `launch`.
    pub(crate) async fn start(guard_dir: Option<&Path>, launch: Launch) -> io::Result<Self> {
        let mut process = platform::start_guard(&guard::arguments(guard_dir))?;
        let (Some(orders), Some(reports)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other("a guard without pipes"));
        };
        let mut guarded = Self {
            process,
            orders,
            reports,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            decoder: Decoder::default(),
            process_id: None,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        match guarded.receive().await? {
            Some(FromGuard::Ready) => {}
            _ => return Err(io::Error::other("the guard did not get ready")),
        }
        guarded.order(&ToGuard::Start(Box::new(launch))).await?;
        Ok(guarded)
    }

    /// Tells the guard that the lease ends at `end`.
    pub(crate) async fn renew(&mut self, end: BootInstant) {
        // A guard that is gone shows at the next `said`.
        let _ = self.order(&ToGuard::Renew(end)).await;
    }

    /// Tells the guard to end everything.
    pub(crate) async fn end(&mut self) {
        let _ = self.order(&ToGuard::End).await;
    }

    /// What the guard says next. If it died with its child still there, the child's group is killed.
    /// Safe to drop at any await.
    pub(crate) async fn said(&mut self) -> io::Result<Said> {
        loop {
            match self.receive().await {
                Ok(Some(FromGuard::Started { process_id })) => {
                    self.process_id = Some(process_id);
                    return Ok(Said::Started);
                }
                Ok(Some(FromGuard::Output(Stream::Stdout, bytes))) => self.stdout.extend_from_slice(&bytes),
                Ok(Some(FromGuard::Output(Stream::Stderr, bytes))) => self.stderr.extend_from_slice(&bytes),
                Ok(Some(FromGuard::Ended(ending))) => return Ok(Said::Ended(ending)),
                Ok(Some(FromGuard::Ready)) => {}
                Ok(None) => {
                    self.kill_orphans();
                    return Err(io::Error::other("the guard died"));
                }
                Err(error) => {
                    self.kill_orphans();
                    return Err(error);
                }
            }
        }
    }

    fn kill_orphans(&mut self) {
        let _ = self.process.start_kill();
        if let Some(process_id) = self.process_id.take() {
            platform::kill_group(process_id);
        }
    }

    async fn order(&mut self, order: &ToGuard) -> io::Result<()> {
        let frame = encode_to_guard(order).map_err(io::Error::other)?;
        self.orders.write_all(&frame).await
    }

    async fn receive(&mut self) -> io::Result<Option<FromGuard>> {
        loop {
            if let Some(message) = self.decoder.next_from_guard().map_err(io::Error::other)? {
                return Ok(Some(message));
            }
            match self.reports.read(&mut self.buffer).await? {
                0 => return Ok(None),
                count => self.decoder.push(&self.buffer[..count]),
            }
        }
    }
}

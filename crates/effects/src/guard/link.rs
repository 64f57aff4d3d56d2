//! A guard's two pipes to its starter, as messages. Nothing here ever blocks: what cannot be written yet is kept.

use std::io;

use fleet_core::limits::LOG_TAIL_BYTES_MAX;
use tokio::io::AsyncReadExt;

use super::protocol::{Decoder, FromGuard, ToGuard, encode_from_guard};
use crate::platform::{self, pipe};

/// Unwritten bytes above which no more of the child's output is read.
const PENDING_BYTES_MAX: usize = 4 * LOG_TAIL_BYTES_MAX;

/// From the starter.
#[derive(Debug)]
pub(crate) struct Orders {
    pipe: pipe::Receiver,
    decoder: Decoder,
}

/// To the starter.
#[derive(Debug)]
pub(crate) struct Reports {
    pipe: pipe::Sender,
    pending: Vec<u8>,
    broken: bool,
}

/// Both directions.
pub(crate) fn open() -> io::Result<(Orders, Reports)> {
    let (receiver, sender) = platform::guard_pipes()?;
    let orders = Orders { pipe: receiver, decoder: Decoder::default() };
    Ok((orders, Reports { pipe: sender, pending: Vec::new(), broken: false }))
}

impl Orders {
    /// The next order; `None` when the starter is gone or talks nonsense. Safe to drop at any await.
    pub(crate) async fn next(&mut self) -> Option<ToGuard> {
        let mut bytes = [0; 4096];
        loop {
            match self.decoder.next_to_guard() {
                Ok(Some(order)) => return Some(order),
                Ok(None) => {}
                Err(_) => return None,
            }
            match self.pipe.read(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.push(&bytes[..count]),
            }
        }
    }
}

impl Reports {
    /// Queues `message`.
    pub(crate) fn queue(&mut self, message: &FromGuard) {
        match encode_from_guard(message) {
            Ok(frame) if !self.broken => self.pending.extend_from_slice(&frame),
            _ => {}
        }
    }

    /// Whether there is room for more of the child's output.
    pub(crate) fn has_room(&self) -> bool {
        self.pending.len() < PENDING_BYTES_MAX
    }

    /// Whether anything waits to be written.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes some of what waits. Safe to drop at any await.
    pub(crate) async fn write_some(&mut self) {
        let written = match self.pipe.writable().await {
            Ok(()) => self.pipe.try_write(&self.pending),
            Err(error) => Err(error),
        };
        match written {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                self.broken = true;
                self.pending.clear();
            }
        }
    }

    /// Writes all that waits, as long as the starter reads.
    pub(crate) async fn write_all(&mut self) {
        while self.is_pending() {
            self.write_some().await;
        }
    }
}

//! What travels on a link between sites. Wire format of a frame: `version u8 | body`, the body postcard.
//!
//! A kind of frame is only ever added at the end, and sent only to a side whose hello says it knows it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use fleet_core::{Error, ErrorKind, GroupId, NodeId, SiteName, Timestamp};
use fleet_store::record::Payload;

use crate::ports::{RobotOffer, SiteTopic};

/// Version of the frames written, and the only one so far.
const WIRE_VERSION: u8 = 1;
/// Largest frame sent or accepted, bytes.
pub const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a message in one frame: small enough that a few of them fill a slow link for less than a second.
pub(super) const PIECE_BYTES_MAX: usize = 8 * 1024;
/// Longest text of a refusal, bytes.
const FAILURE_TEXT_BYTES_MAX: usize = 4 * 1024;

/// Names a call among those of the side that asks.
pub(super) type CallNumber = u64;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Who speaks; the first frame of each side, and only that.
    Hello(Hello),
    /// What the site has, now and at every change.
    Report(SiteReport),
    /// Part of a message.
    Piece(Piece),
    /// Bytes of messages that were taken in since this was last said.
    Received {
        /// How many.
        bytes: u32,
    },
    /// Whoever asked does not wait for the answer any more.
    GiveUp {
        /// Which of its calls.
        call: u64,
    },
    /// A sealed packet of gossip.
    Packet(GossipPacket),
    /// Nothing; it shows that the link lives.
    KeepAlive,
}

/// Who speaks at one end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of this protocol it knows.
    pub version: u16,
    /// Its site.
    pub site: SiteName,
    /// The node.
    pub node: NodeId,
    /// The group of its site.
    pub group: GroupId,
    /// The group's epoch.
    pub epoch: u64,
    /// The group's term, as far as the node knows.
    pub term: u64,
    /// When it dialled or was dialled, by its own wall clock.
    pub at: Timestamp,
}

/// What a site says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Who leads its group.
    pub leader: Option<NodeId>,
    /// Its wall clock.
    pub at: Timestamp,
    /// Its nodes that gossip with other sites; at most eight.
    pub nodes: Vec<WanNode>,
    /// What its robots offer; at most `ROBOTS_MAX`.
    pub robots: Vec<RobotOffer>,
}

/// A node that gossips with other sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanNode {
    /// Its id.
    pub node: NodeId,
    /// Where its gossip packets go.
    pub gossip: SocketAddr,
    /// `host:port` where it takes links.
    pub address: String,
}

/// A packet of gossip between sites, as it would travel by UDP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipPacket {
    /// Which node sent it.
    pub from: SocketAddr,
    /// Which node it is for.
    pub to: SocketAddr,
    /// The sealed packet.
    pub sealed: Payload,
}

/// Part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The call it belongs to.
    pub(super) call: CallNumber,
    /// What the message is.
    pub(super) part: Part,
    /// Whether it is the last piece.
    pub(super) is_last: bool,
    /// Its bytes.
    pub(super) bytes: Payload,
}

/// What a message is, in its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Part {
    /// The question; the call is one of the speaker's.
    Ask(SiteTopic),
    /// The answer; the call is one of the other side's.
    Answer,
    /// The refusal instead of an answer; the bytes are a [`Failure`].
    Refusal,
}

/// An error as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    kind: ErrorKind,
    message: String,
    next_step: Option<String>,
    retry_after_ms: Option<u64>,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        Self {
            kind: error.kind,
            message: shortened(&error.message),
            next_step: error.next_step.as_deref().map(shortened),
            retry_after_ms: error.retry_after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    pub(super) fn into_error(self) -> Error {
        let mut error = Error::new(self.kind, self.message);
        error.next_step = self.next_step;
        error.retry_after = self.retry_after_ms.map(Duration::from_millis);
        error
    }

    pub(super) fn encode(&self) -> Payload {
        // A vector takes any of these; nothing else can fail.
        Payload::from(postcard::to_allocvec(self).unwrap_or_default())
    }

    /// The error in `bytes`; one of our own where they cannot be read.
    pub(super) fn decode(bytes: &[u8]) -> Error {
        match postcard::from_bytes::<Self>(bytes) {
            Ok(failure) => failure.into_error(),
            Err(_) => Error::new(ErrorKind::Internal, "ask another site: its refusal cannot be read"),
        }
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(FAILURE_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl Frame {
    /// The frame as it travels.
    ///
    /// # Errors
    /// `Internal` if it is longer than [`FRAME_BYTES_MAX`].
    pub fn encode(&self) -> Result<Bytes, Error> {
        let failed = || Error::new(ErrorKind::Internal, "encode a frame for another site");
        let bytes = postcard::to_extend(self, vec![WIRE_VERSION]).map_err(|source| failed().with_source(source))?;
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(failed().with_source(format!("{} bytes, at most {FRAME_BYTES_MAX}", bytes.len())));
        }
        Ok(Bytes::from(bytes))
    }

    /// The frame in `bytes`.
    ///
    /// # Errors
    /// `InvalidInput` if it is none or too long, `Unsupported` for a version to come.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let invalid = || Error::new(ErrorKind::InvalidInput, "decode a frame of another site");
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(invalid().with_source(format!("{} bytes, at most {FRAME_BYTES_MAX}", bytes.len())));
        }
        match bytes.split_first() {
            Some((&WIRE_VERSION, body)) => postcard::from_bytes(body).map_err(|source| invalid().with_source(source)),
            Some((version, _)) => {
                Err(Error::new(ErrorKind::Unsupported, format!("decode a frame of another site of version {version}")))
            }
            None => Err(invalid()),
        }
    }
}

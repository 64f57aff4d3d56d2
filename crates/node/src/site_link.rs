//! The link between two sites: one connection, dialled from whichever side can, over which both sides ask each other,
//! report what they have, and pass gossip packets.
//!
//! [`Protocol`] decides what is sent next and what a frame means; [`DialPlan`] decides who dials whom; both are pure.
//! [`serve`] carries a protocol out over two channels of frames and is the only part with a clock. Which bytes the
//! channels end in is the daemon's part.
//!
//! Invariants: everything that waits is bounded; a large message never holds up a small one of a more urgent kind for
//! longer than a window of bytes takes on the wire; a link that is silent is cut.

mod dial;
mod driver;
mod figures;
mod frame;
mod inbox;
mod outbox;
mod protocol;
mod report;
mod window;

#[cfg(test)]
mod slow_tests;
#[cfg(test)]
mod tests;

pub use dial::{Dial, DialPlan, LinkFact, LinkRank, Situation};
pub use driver::{LinkEvents, LinkRequests, SiteLink, serve};
pub use figures::{Flow, LinkFigures, Traffic};
pub use frame::{FRAME_BYTES_MAX, Frame, GossipPacket, Hello, SiteReport, WanNode};
pub use protocol::{Command, LINK_VERSION, Protocol};
pub use report::bounded;

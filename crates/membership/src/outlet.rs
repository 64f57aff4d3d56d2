//! Where packets between sites go other than by UDP: over the link to the destination's site, of this node or of another
//! node of its site. Many sites can only dial out, and let no UDP through.

use std::net::SocketAddr;

/// A sealed packet of the ring between sites, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing<'a> {
    /// Which node sent it.
    pub from: SocketAddr,
    /// Which node it is for.
    pub to: SocketAddr,
    /// The packet.
    pub sealed: &'a [u8],
}

/// The way of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A link took it.
    Taken,
    /// It is for the node of this site whose gossip goes there: that one holds the link.
    By(SocketAddr),
    /// There is no link: by UDP.
    Direct,
}

/// Asked for every packet between sites. Called on the gossip thread, so it must not wait.
pub trait Outlet: Send + Sync + 'static {
    /// Takes `packet` to its site, or says how else it goes.
    fn take(&self, packet: Passing<'_>) -> Way;
}

/// A packet that came over a link, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sealed: Vec<u8>,
}

//! One link as a gRPC stream: accepted from another site, or dialled. Either way the task that runs it owns it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet_api::pb::peer::SiteFrame;
use fleet_api::pb::peer::sites_client::SitesClient;
use fleet_api::status::error_of;
use fleet_core::{Clock, Error, ErrorKind, GroupId, NodeId, SiteName, SystemClock, Timestamp};
use fleet_node::ports::SiteTopic;
use fleet_node::site_link::{
    FRAME_BYTES_MAX, GossipPacket, Hello, LinkEvents, LinkRank, LinkRequests, Protocol, SiteLink, SiteReport, serve,
};
use fleet_store::record::Payload;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::home::SiteContact;
use super::hub::{Held, SiteLinks};
use crate::listener::PeerIdentity;

/// Frames between the link's task and the transport, each way. Few: what waits there cannot be overtaken any more.
const FRAMES_WAITING_MAX: usize = 4;
/// Bytes of a gRPC message around a frame.
const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + 64;
/// How long opening a link may take, hello included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);
/// How often the time at which a site was heard is noted.
const NOTE_EVERY: Duration = Duration::from_millis(500);

/// A frame on its way to the transport.
pub type OutgoingFrames = std::pin::Pin<Box<dyn Stream<Item = Result<SiteFrame, Status>> + Send>>;

/// Takes a link that another site has dialled; what goes back to it.
///
/// # Errors
/// `PermissionDenied` for anyone but a node of another site.
pub fn accept(
    links: &SiteLinks,
    identity: PeerIdentity,
    frames: impl Stream<Item = Result<SiteFrame, Status>> + Send + Unpin + 'static,
) -> Result<OutgoingFrames, Error> {
    let (node, site) = identity.require_other_site()?;
    let (outgoing, answers) = mpsc::channel(FRAMES_WAITING_MAX);
    let end = LinkEnd { links: links.clone(), node: Some(node), is_dialled: false, site, opened: None };
    // It ends with its connection, which the listener owns.
    tokio::spawn(run(end, frames, outgoing));
    Ok(Box::pin(ReceiverStream::new(answers).map(|bytes: Bytes| Ok(SiteFrame { payload: bytes.into() }))))
}

/// Dials `site` over `channel`, and returns once the link is open; it runs on until it ends.
///
/// # Errors
/// `Unavailable` if it does not open, else what the other side says.
pub(super) async fn dial(links: SiteLinks, site: SiteName, channel: Channel) -> Result<(), Error> {
    let refused = |what: &str| Error::new(ErrorKind::Unavailable, format!("open a link to site {site}: {what}"));
    let opening = async {
        let (outgoing, sent) = mpsc::channel(FRAMES_WAITING_MAX);
        let sent = ReceiverStream::new(sent).map(|bytes: Bytes| SiteFrame { payload: bytes.into() });
        let mut client = SitesClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let frames = client.link(Request::new(sent)).await.map_err(|status| error_of(&status))?.into_inner();
        let (opened, is_open) = oneshot::channel();
        let end = LinkEnd { links, node: None, is_dialled: true, site: site.clone(), opened: Some(opened) };
        // It ends with its stream, or when the hub ends its links.
        tokio::spawn(run(end, frames, outgoing));
        is_open.await.map_err(|_| refused("the other side did not say who it is, or is not who was meant"))
    };
    tokio::time::timeout(OPEN_TIMEOUT, opening).await.unwrap_or_else(|_| Err(refused("no answer in time")))
}

/// This node's end of a link before it runs.
struct LinkEnd {
    links: SiteLinks,
    /// The node at the other end, where its certificate was seen here; whoever dials has its site proved by TLS.
    node: Option<NodeId>,
    is_dialled: bool,
    /// The site at the other end, as its certificate has proved.
    site: SiteName,
    opened: Option<oneshot::Sender<()>>,
}

async fn run(
    end: LinkEnd,
    frames: impl Stream<Item = Result<SiteFrame, Status>> + Send + Unpin,
    outgoing: mpsc::Sender<Bytes>,
) {
    let LinkEnd { links, node, is_dialled, site, opened } = end;
    let (link, requests): (SiteLink, LinkRequests) = SiteLink::channel();
    let own = links.home().hello();
    let protocol = Protocol::new(Duration::ZERO, own.clone(), site);
    let number = Arc::new(std::sync::OnceLock::new());
    let events = Events {
        links: links.clone(),
        own,
        node,
        is_dialled,
        link,
        number: Arc::clone(&number),
        opened,
        peer: None,
        noted_at: Timestamp(0),
    };
    let (incoming_sender, incoming) = mpsc::channel(FRAMES_WAITING_MAX);
    let reason = tokio::select! {
        reason = serve(protocol, Instant::now(), incoming, outgoing, requests, events) => reason,
        () = pump(frames, incoming_sender) => "the connection broke",
    };
    match number.get() {
        Some(number) => links.let_go(*number, reason),
        None => tracing::debug!(reason, is_dialled, "a link to another site was not opened"),
    }
}

/// Brings frames from the transport, and never returns before the link was told that they ended.
async fn pump(mut frames: impl Stream<Item = Result<SiteFrame, Status>> + Unpin, incoming: mpsc::Sender<Bytes>) {
    while let Some(Ok(frame)) = frames.next().await {
        if incoming.send(Bytes::from(frame.payload)).await.is_err() {
            break;
        }
    }
    drop(incoming);
    std::future::pending::<()>().await;
}

struct Events {
    links: SiteLinks,
    own: Hello,
    node: Option<NodeId>,
    is_dialled: bool,
    link: SiteLink,
    number: Arc<std::sync::OnceLock<u64>>,
    opened: Option<oneshot::Sender<()>>,
    peer: Option<(SiteName, GroupId)>,
    noted_at: Timestamp,
}

impl LinkEvents for Events {
    fn opened(&mut self, peer: &Hello) -> Result<(), &'static str> {
        if self.node.is_some_and(|node| node != peer.node) {
            return Err("its certificate is another node's");
        }
        let registered = self.links.home().contacts();
        if registered.get(&peer.site).is_some_and(|contact| contact.group != peer.group) {
            return Err("its group is not the one that was recorded for its site");
        }
        let is_taken = |(site, contact): (&SiteName, &SiteContact)| *site != peer.site && contact.group == peer.group;
        if peer.group == self.own.group || registered.iter().any(is_taken) {
            return Err("its group is another site's");
        }
        let rank = LinkRank::of(if self.is_dialled { &self.own } else { peer });
        let number = self.links.hold(Held {
            site: peer.site.clone(),
            group: peer.group,
            node: peer.node,
            is_dialled: self.is_dialled,
            rank,
            link: self.link.clone(),
            clock_offset_ms: None,
        })?;
        self.peer = Some((peer.site.clone(), peer.group));
        let _first = self.number.set(number);
        if let Some(opened) = self.opened.take() {
            // Whoever dialled may have given up meanwhile; the link is as good.
            let _told = opened.send(());
        }
        Ok(())
    }

    fn answer(&mut self, topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        match &self.peer {
            Some((site, _)) => self.links.clone().answer(site.clone(), topic, message).boxed(),
            None => std::future::ready(Err(Error::new(ErrorKind::Internal, "answer a site that is not known"))).boxed(),
        }
    }

    fn reported(&mut self, report: SiteReport) {
        if let Some((site, group)) = &self.peer {
            let now = SystemClock.now();
            if let Some(number) = self.number.get() {
                self.links.note_clock(*number, report.at, now);
            }
            self.links.note(site, *group, now, Some(report));
            self.links.tell_known();
        }
    }

    fn packet(&mut self, packet: GossipPacket) {
        self.links.packet(packet);
    }

    fn heard(&mut self) {
        let now = SystemClock.now();
        if let Some((site, group)) = &self.peer
            && now.saturating_since(self.noted_at) >= NOTE_EVERY
        {
            self.noted_at = now;
            self.links.note(site, *group, now, None);
        }
    }
}

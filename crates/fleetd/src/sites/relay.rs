//! The ways within the site: to the node that holds the link, and from it to the leader.

use std::time::Duration;

use fleet_api::pb::peer::sites_client::SitesClient;
use fleet_api::pb::peer::{GetKnownSitesRequest, GetKnownSitesResponse, KnownSite, SiteMessage, SiteMessageTopic};
use fleet_api::status::error_of;
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, GroupId, NodeId, SiteName, Timestamp};
use fleet_node::ports::SiteTopic;
use fleet_node::site_link::{Frame, SiteReport};
use fleet_store::record::Payload;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tonic::Request;
use tonic::transport::Channel;

use super::hub::SiteLinks;
use crate::ports::{Peers, Purpose};

/// How long the other node of the site may take: longer than a call over the link may.
const RELAY_TIMEOUT: Duration = Duration::from_secs(305);
/// How long a node may take to say which sites it knows.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a gRPC message around a message between sites.
const MESSAGE_BYTES_MAX: usize = GRPC_MESSAGE_BYTES_MAX + 1_024;

/// What a node of this site said of a site it holds a link to.
pub type Told = (SiteName, GroupId, Timestamp, SiteReport);

/// How others of the site are asked; the daemon does it over gRPC, tests directly.
pub trait Within: Send + Sync + 'static {
    /// Has `holder` ask `site` over its link.
    fn relay(
        &self,
        holder: NodeId,
        site: SiteName,
        topic: SiteTopic,
        message: Payload,
    ) -> BoxFuture<'static, Result<Payload, Error>>;

    /// Has `leader` answer what `from` asked.
    fn deliver(
        &self,
        leader: NodeId,
        from: SiteName,
        topic: SiteTopic,
        message: Payload,
    ) -> BoxFuture<'static, Result<Payload, Error>>;

    /// What `holder` knows of the sites it holds links to.
    fn known(&self, holder: NodeId) -> BoxFuture<'static, Result<Vec<Told>, Error>>;
}

impl Within for Peers {
    fn relay(
        &self,
        holder: NodeId,
        site: SiteName,
        topic: SiteTopic,
        message: Payload,
    ) -> BoxFuture<'static, Result<Payload, Error>> {
        pass(client(self, holder), Way::ToHolder, request(&site, topic, message)).boxed()
    }

    fn deliver(
        &self,
        leader: NodeId,
        from: SiteName,
        topic: SiteTopic,
        message: Payload,
    ) -> BoxFuture<'static, Result<Payload, Error>> {
        pass(client(self, leader), Way::ToLeader, request(&from, topic, message)).boxed()
    }

    fn known(&self, holder: NodeId) -> BoxFuture<'static, Result<Vec<Told>, Error>> {
        let client = client(self, holder);
        async move {
            let mut request = Request::new(GetKnownSitesRequest {});
            request.set_timeout(KNOWN_TIMEOUT);
            let answer = client?.get_known_sites(request).await.map_err(|status| error_of(&status))?;
            answer.into_inner().sites.iter().map(told).collect()
        }
        .boxed()
    }
}

/// Which way a message goes within the site.
enum Way {
    /// Out: to the node that holds the link.
    ToHolder,
    /// In: to the leader, who answers.
    ToLeader,
}

async fn pass(
    client: Result<SitesClient<Channel>, Error>,
    way: Way,
    request: Request<SiteMessage>,
) -> Result<Payload, Error> {
    let mut client = client?;
    let answer = match way {
        Way::ToHolder => client.relay(request).await,
        Way::ToLeader => client.deliver(request).await,
    };
    answer.map(|answer| Payload::from(answer.into_inner().payload)).map_err(|status| error_of(&status))
}

fn client(peers: &Peers, node: NodeId) -> Result<SitesClient<Channel>, Error> {
    let channel = peers.channel(node, Purpose::Forward)?;
    Ok(SitesClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

fn request(site: &SiteName, topic: SiteTopic, message: Payload) -> Request<SiteMessage> {
    let mut request = Request::new(message_of(site, topic, message));
    request.set_timeout(RELAY_TIMEOUT);
    request
}

/// A message as it travels within the site.
pub(crate) fn message_of(site: &SiteName, topic: SiteTopic, message: Payload) -> SiteMessage {
    let topic = match topic {
        SiteTopic::Courier => SiteMessageTopic::Courier,
        SiteTopic::Catalog => SiteMessageTopic::Catalog,
        SiteTopic::Client => SiteMessageTopic::Client,
        SiteTopic::Registry => SiteMessageTopic::Registry,
    };
    SiteMessage { site: site.to_string(), topic: topic.into(), payload: message.0.into() }
}

/// The site and the topic of a message.
///
/// # Errors
/// `InvalidInput` if it is not one of ours.
pub(crate) fn topic_of(message: &SiteMessage) -> Result<(SiteName, SiteTopic), Error> {
    let malformed = |what: &str| Error::new(ErrorKind::InvalidInput, format!("read a message between sites: {what}"));
    let site = message.site.parse().map_err(|_| malformed("the site's name is malformed"))?;
    let topic = match message.topic() {
        SiteMessageTopic::Courier => SiteTopic::Courier,
        SiteMessageTopic::Catalog => SiteTopic::Catalog,
        SiteMessageTopic::Client => SiteTopic::Client,
        SiteMessageTopic::Registry => SiteTopic::Registry,
        SiteMessageTopic::Unspecified => return Err(malformed("its topic is not known")),
    };
    Ok((site, topic))
}

/// What `links` know, as it travels.
pub(crate) fn known_of(links: &SiteLinks) -> GetKnownSitesResponse {
    let mut sites = Vec::new();
    for (site, group, heard_at, report) in links.heard_over_links() {
        // It came in a frame, so it goes into one.
        if let Ok(report) = Frame::Report((*report).clone()).encode() {
            let (group, report) = (group.as_bytes().to_vec(), report.into());
            sites.push(KnownSite { site: site.to_string(), group, heard_at_ms: heard_at.0, report });
        }
    }
    GetKnownSitesResponse { sites }
}

fn told(known: &KnownSite) -> Result<Told, Error> {
    let malformed = || Error::new(ErrorKind::InvalidInput, "read what a node knows of other sites");
    let site = known.site.parse().map_err(|_| malformed())?;
    let group = GroupId::from_slice(&known.group).ok_or_else(malformed)?;
    match Frame::decode(&known.report)? {
        Frame::Report(report) => Ok((site, group, Timestamp(known.heard_at_ms), report)),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_within_the_site_keeps_site_and_topic() {
        let site: SiteName = "south".parse().unwrap();
        for topic in [SiteTopic::Courier, SiteTopic::Catalog, SiteTopic::Client] {
            let message = message_of(&site, topic, Payload::from("x"));
            assert_eq!(topic_of(&message).unwrap(), (site.clone(), topic));
        }
        assert!(topic_of(&SiteMessage::default()).is_err());
    }
}

//! What nodes of other sites call, and how the nodes of this one share its links.

use std::sync::Arc;

use fleet_api::pb::peer;
use fleet_api::pb::peer::sites_server::{Sites, SitesServer};
use fleet_api::status::status_of;
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, NodeId};
use fleet_store::record::Payload;
use tonic::{Request, Response, Status, Streaming};

use crate::listener::PeerIdentity;
use crate::sites::{Home, SiteLinks, accept, known_of, message_of, topic_of};

/// Bytes of a gRPC message around a message between sites. Frames of a link are shorter, which their decoding checks.
const MESSAGE_BYTES_MAX: usize = GRPC_MESSAGE_BYTES_MAX + 1_024;

/// The service.
#[derive(Clone)]
pub struct SitesService {
    links: SiteLinks,
    home: Arc<dyn Home>,
}

impl SitesService {
    /// Serves `links` of the site that `home` tells of.
    pub fn new(links: SiteLinks, home: Arc<dyn Home>) -> Self {
        Self { links, home }
    }

    /// The service with its bounds.
    pub fn server(self) -> SitesServer<Self> {
        SitesServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The caller, where only a node of this site may call.
    fn require_own<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let caller = PeerIdentity::of_request(request.extensions()).require_node();
        caller.and_then(|caller| check_own(caller, self.home.is_member(caller))).map_err(|error| status_of(&error))
    }
}

fn check_own(caller: NodeId, is_member: bool) -> Result<NodeId, Error> {
    if is_member {
        return Ok(caller);
    }
    let message = format!("use the links of a site: node {caller} does not belong to it");
    Err(Error::new(ErrorKind::PermissionDenied, message))
}

#[tonic::async_trait]
impl Sites for SitesService {
    type LinkStream = crate::sites::OutgoingFrames;

    async fn link(&self, request: Request<Streaming<peer::SiteFrame>>) -> Result<Response<Self::LinkStream>, Status> {
        let identity = PeerIdentity::of_request(request.extensions());
        let answers = accept(&self.links, identity, request.into_inner());
        answers.map(Response::new).map_err(|error| status_of(&error))
    }

    async fn relay(&self, request: Request<peer::SiteMessage>) -> Result<Response<peer::SiteMessage>, Status> {
        self.require_own(&request)?;
        let message = request.into_inner();
        let answer = async {
            let (site, topic) = topic_of(&message)?;
            let answer = self.links.ask_directly(&site, topic, Payload::from(message.payload)).await?;
            Ok(message_of(&site, topic, answer))
        };
        answer.await.map(Response::new).map_err(|error: Error| status_of(&error))
    }

    async fn deliver(&self, request: Request<peer::SiteMessage>) -> Result<Response<peer::SiteMessage>, Status> {
        self.require_own(&request)?;
        let message = request.into_inner();
        let answer = async {
            let (site, topic) = topic_of(&message)?;
            if !self.home.is_leading() {
                return Err(Error::new(ErrorKind::NotLeader, format!("answer site {site}: this node does not lead")));
            }
            let answer = self.links.answer_here(site.clone(), topic, Payload::from(message.payload)).await?;
            Ok(message_of(&site, topic, answer))
        };
        answer.await.map(Response::new).map_err(|error: Error| status_of(&error))
    }

    async fn get_known_sites(
        &self,
        request: Request<peer::GetKnownSitesRequest>,
    ) -> Result<Response<peer::GetKnownSitesResponse>, Status> {
        self.require_own(&request)?;
        Ok(Response::new(known_of(&self.links)))
    }
}

//! Passing a request on to the leader: once, over the connection that nodes keep to each other.

use std::time::Duration;

use fleet_api::status::status_of;
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, NodeId};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::caller::{FORWARDED, is_forwarded};
use crate::ports::Purpose;
use crate::site::Site;

/// How long the leader may take over a request that was passed on.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a request is to be answered.
pub(super) enum Place {
    /// Here: this node leads and serves.
    Here,
    /// By this node, over this channel.
    There(NodeId, Channel),
}

/// Where `request` is to be answered.
///
/// # Errors
/// `Unavailable` if no leader is known, `NotLeader` if the request was passed on already.
pub(super) fn place<T>(site: &Site, request: &Request<T>) -> Result<Place, Error> {
    if site.group().serving_term().is_some() {
        return Ok(Place::Here);
    }
    let no_leader = || {
        Error::new(ErrorKind::Unavailable, format!("site {} has no leader now", site.name()))
            .with_retry_after(Duration::from_millis(200))
            .with_next_step("A new one is elected within about a second; if not, a majority of the voters is down.")
    };
    let leader = site.other_leader().ok_or_else(no_leader)?;
    if is_forwarded(request) {
        let address = site.peers().address(leader).unwrap_or_default();
        let error = Error::new(ErrorKind::NotLeader, "answer a request that was passed on: this node does not lead");
        return Err(error.with_retry_after(Duration::from_millis(100)).with_leader_hint(address));
    }
    Ok(Place::There(leader, site.peers().channel(leader, Purpose::Forward)?))
}

/// `message` as it is passed on.
pub(super) fn passed_on<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
    request.set_timeout(FORWARD_TIMEOUT);
    request
}

/// Answers `request` here with `local`, or passes it on to the leader with `remote`.
pub(super) async fn answer<Req, Res, Local, Remote>(
    site: &Site,
    request: Request<Req>,
    local: impl FnOnce(Req) -> Local,
    remote: impl FnOnce(Channel, Request<Req>) -> Remote,
) -> Result<Response<Res>, Status>
where
    Local: Future<Output = Result<Res, Error>>,
    Remote: Future<Output = Result<Response<Res>, Status>>,
{
    match place(site, &request).map_err(|error| status_of(&error))? {
        Place::Here => local(request.into_inner()).await.map(Response::new).map_err(|error| status_of(&error)),
        Place::There(leader, channel) => {
            let answer = remote(channel, passed_on(request.into_inner())).await;
            answer.inspect_err(|status| tracing::debug!(%leader, %status, "request passed on failed"))
        }
    }
}

/// The client service at the other end of `channel`.
pub(super) fn fleet_client(channel: Channel) -> fleet_api::pb::v1::fleet_client::FleetClient<Channel> {
    fleet_api::pb::v1::fleet_client::FleetClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}

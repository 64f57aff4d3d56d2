//! Passing a request on to the leader: once, over the connection that nodes keep to each other. Which methods may come that
//! way stands in `listener/access.rs`.

use std::time::Duration;

use fleet_api::status::status_of;
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, NodeId};
use fleet_replication::Status;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response};

use super::caller::{FORWARDED, is_forwarded};
use crate::ports::Purpose;
use crate::site::Site;

/// How long the leader may take over a request that was passed on, where the client does not give up sooner.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);
/// The header in which a caller says how long it waits.
pub(super) const TIMEOUT_HEADER: &str = "grpc-timeout";

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

/// `request` as it is passed on: its message, and no more time than its client has.
pub(super) fn passed_on<T>(request: Request<T>) -> Request<T> {
    let left = request.metadata().get(TIMEOUT_HEADER).and_then(|value| parse_timeout(value.to_str().ok()?));
    let mut onward = Request::new(request.into_inner());
    onward.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
    onward.set_timeout(left.map_or(FORWARD_TIMEOUT, |left| left.min(FORWARD_TIMEOUT)));
    onward
}

/// A timeout as gRPC writes it: at most eight digits and a unit.
pub(super) fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Answers `request` here with `local`, or passes it on to the leader with `remote`.
pub(super) async fn answer<Req, Res, Local, Remote>(
    site: &Site,
    request: Request<Req>,
    local: impl FnOnce(Req) -> Local,
    remote: impl FnOnce(Channel, Request<Req>) -> Remote,
) -> Result<Response<Res>, tonic::Status>
where
    Local: Future<Output = Result<Res, Error>>,
    Remote: Future<Output = Result<Response<Res>, tonic::Status>>,
{
    match place(site, &request).map_err(|error| status_of(&error))? {
        Place::Here => local(request.into_inner()).await.map(Response::new).map_err(|error| status_of(&error)),
        Place::There(leader, channel) => {
            let answer = tokio::select! {
                biased;
                answer = remote(channel, passed_on(request)) => answer,
                () = leads_no_more(site, leader) => Err(status_of(&unknown_outcome(site))),
            };
            answer.inspect_err(|status| tracing::debug!(%leader, %status, "request passed on failed"))
        }
    }
}

/// Waits until somebody else than `asked` leads. That one may still do what it was asked, but its answer may never come.
async fn leads_no_more(site: &Site, asked: NodeId) {
    let mut status = site.group().status();
    if status.wait_for(|status| has_other_leader(status, asked)).await.is_err() {
        // The group ended; whoever stops it ends its calls too.
        std::future::pending::<()>().await;
    }
}

fn has_other_leader(status: &Status, asked: NodeId) -> bool {
    status.serving_term.is_some() || status.leader.is_some_and(|leader| leader != asked)
}

/// What whoever asked a leader that leads no more is told, so that it may ask the next one where that can do no harm.
fn unknown_outcome(site: &Site) -> Error {
    let message =
        format!("site {} has another leader now, and whether the one before did it is not known", site.name());
    Error::new(ErrorKind::Unavailable, message).with_next_step("Ask again, or look whether it was done.")
}

/// The client service at the other end of `channel`.
pub(super) fn fleet_client(channel: Channel) -> fleet_api::pb::v1::fleet_client::FleetClient<Channel> {
    fleet_api::pb::v1::fleet_client::FleetClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_leader_ends_the_waiting_for_one() {
        let [asked, next] = [NodeId::generate(), NodeId::generate()];
        let led_by = |leader| Status { leader, ..Status::default() };
        assert!(!has_other_leader(&led_by(Some(asked)), asked));
        assert!(!has_other_leader(&led_by(None), asked), "nobody else could be asked");
        assert!(has_other_leader(&led_by(Some(next)), asked));
        let serving = Status { serving_term: Some(7), ..led_by(None) };
        assert!(has_other_leader(&serving, asked), "this node leads");
    }

    fn onward(timeout: Option<Duration>) -> Option<Duration> {
        let mut request = Request::new(());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let passed = passed_on(request);
        assert!(passed.metadata().contains_key(FORWARDED));
        parse_timeout(passed.metadata().get(TIMEOUT_HEADER)?.to_str().ok()?)
    }

    #[test]
    fn the_leader_gets_no_more_time_than_the_client_has() {
        assert_eq!(onward(Some(Duration::from_millis(1_500))), Some(Duration::from_millis(1_500)));
        assert_eq!(onward(Some(Duration::from_secs(600))), Some(FORWARD_TIMEOUT));
        assert_eq!(onward(None), Some(FORWARD_TIMEOUT));
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let read = [("2H", 7_200_000), ("3M", 180_000), ("4S", 4_000), ("5m", 5), ("6000u", 6), ("7000000n", 7)];
        for (text, millis) in read {
            assert_eq!(parse_timeout(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "S", "5", "5x", "-5S", "123456789S", "5µ"] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }
}

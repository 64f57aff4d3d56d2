//! The group's network over gRPC: one call, one answer, no second try.

use std::time::Duration;

use bytes::Bytes;
use fleet_api::pb::peer::GroupMessage;
use fleet_core::NodeId;
use fleet_replication::{CallError, CallFuture, GroupNetwork};
use tonic::Code;

use super::peers::{Peers, Purpose};

/// Reaches the other nodes of the group.
#[derive(Clone)]
pub struct NetworkPort {
    peers: Peers,
}

impl NetworkPort {
    /// Through `peers`.
    pub fn new(peers: Peers) -> Self {
        Self { peers }
    }
}

/// A call under way. Whoever made it may give it up at any moment, which is how most calls without an answer end.
struct Asking<'a> {
    peers: &'a Peers,
    target: NodeId,
    is_answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.peers.missed(self.target, Purpose::Group);
        }
    }
}

impl GroupNetwork for NetworkPort {
    fn call(&self, target: NodeId, request: Bytes, deadline: Duration) -> CallFuture<'_> {
        Box::pin(async move {
            let mut client =
                self.peers.client(target, Purpose::Group).map_err(|error| CallError::Unreachable(error.to_string()))?;
            let mut call = tonic::Request::new(GroupMessage { payload: request.into() });
            call.set_timeout(deadline);
            let mut asking = Asking { peers: &self.peers, target, is_answered: false };
            match client.group(call).await {
                Ok(answer) => {
                    asking.is_answered = true;
                    self.peers.heard(target);
                    Ok(answer.into_inner().payload.into())
                }
                Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => {
                    Err(CallError::Deadline)
                }
                Err(status) => Err(CallError::Unreachable(status.message().to_owned())),
            }
        })
    }
}

//! Links between actors as ports: streams to other nodes through the daemon's TLS, and this node's answers.
//!
//! Absent on purpose: anything that must arrive. What is asked and answered here is a look at this moment.

use std::time::Instant;

use aws_lc_rs::hmac;
use fleet_api::PeerDialer;
use fleet_core::{Error, ErrorKind, FleetId, NodeId};
use fleet_node::Node;
use fleet_node::links::{Answer, Answerer, Dialer, LinkStream, NodeStatus, Request};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::site::Site;

/// Keeps the cookie apart from whatever else is derived from the same key.
const COOKIE_PURPOSE: &[u8] = b"fleet-actors/1 cookie";

/// The cookie of the fleet's actor links: the same on every node that has `secret`, and telling nothing about it.
pub fn cookie(secret: &[u8; 32], fleet: FleetId) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(COOKIE_PURPOSE);
    context.update(fleet.as_bytes());
    context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Dials other nodes' actors.
#[derive(Clone, Debug)]
pub struct ActorDialer {
    dialer: PeerDialer,
}

impl ActorDialer {
    /// Dials with `dialer`.
    pub fn new(dialer: PeerDialer) -> Self {
        Self { dialer }
    }
}

impl Dialer for ActorDialer {
    fn dial(&self, node: NodeId, address: String) -> BoxFuture<'static, Result<LinkStream, Error>> {
        let dialer = self.dialer.clone();
        async move { Ok(LinkStream::new(node, dialer.actor_stream(&address, node).await?)) }.boxed()
    }
}

/// Answers for this node. A cheap handle.
#[derive(Clone)]
pub struct NodeAnswerer {
    name: String,
    site: Site,
    node: Node,
    started: Instant,
}

impl NodeAnswerer {
    /// Answers for the node called `name`, which starts now.
    pub fn new(name: String, site: Site, node: Node) -> Self {
        Self { name, site, node, started: Instant::now() }
    }

    async fn status(&self) -> Result<NodeStatus, Error> {
        let robot = self.node.observe().await.robot.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("look at node {}: its robot does not answer", self.name))
        })?;
        let free_bytes = self.site.store().free_bytes().map_err(crate::site::read_failed)?;
        Ok(NodeStatus {
            node: self.site.group().node(),
            name: self.name.clone(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            slots: robot.slots,
            slots_busy: u32::try_from(robot.jobs).unwrap_or(u32::MAX),
            is_draining: robot.is_draining,
            store_free_bytes: free_bytes.unwrap_or(u64::MAX),
            applied_index: self.site.group().status().borrow().last_applied.unwrap_or(0),
        })
    }
}

impl Answerer for NodeAnswerer {
    fn answer(&self, request: Request) -> BoxFuture<'static, Result<Answer, Error>> {
        let here = self.clone();
        async move {
            match request {
                Request::Status => Ok(Answer::Status(Box::new(here.status().await?))),
                // Stops and drains come from the leader over the robot link, outputs stand in the journal.
                Request::JobLive(_) | Request::LogTail { .. } | Request::CancelHint(_) | Request::DrainHint { .. } => {
                    let message = format!("answer another node: {} answers no questions of this kind", here.name);
                    Err(Error::new(ErrorKind::Unsupported, message))
                }
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_depends_on_key_and_fleet_and_on_nothing_else() {
        let (fleet, other) = (FleetId::generate(), FleetId::generate());
        assert_eq!(cookie(&[7; 32], fleet), cookie(&[7; 32], fleet));
        assert_eq!(cookie(&[7; 32], fleet).len(), 64);
        assert_ne!(cookie(&[7; 32], fleet), cookie(&[8; 32], fleet));
        assert_ne!(cookie(&[7; 32], fleet), cookie(&[7; 32], other));
    }
}

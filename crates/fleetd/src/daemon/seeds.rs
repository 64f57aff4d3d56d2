//! Names of nodes to gossip with, resolved while the node runs: names may not resolve yet when a machine boots.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use fleet_membership::Membership;

use crate::config::HostFacts;

/// Pause between two tries of the names that do not resolve.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How long this node's own name may take to resolve.
const OWN_NAME_TIMEOUT: Duration = Duration::from_secs(3);

/// Where others reach this node's gossip: `advertise`, or while that name does not resolve the address of the default route.
pub(super) async fn own_address(advertise: &str) -> SocketAddr {
    if let Ok(address) = advertise.parse() {
        return address;
    }
    if let Ok(Some(address)) = tokio::time::timeout(OWN_NAME_TIMEOUT, resolve(advertise.to_owned())).await {
        return address;
    }
    let port = advertise.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
    let address = SocketAddr::new(HostFacts::read().route, port);
    tracing::warn!(advertise, %address, "this node's own name does not resolve: others are told the address of the default route");
    address
}

/// Has `membership` call every one of `contacts`, `host:port`, once its name resolves.
pub(super) async fn call(membership: Membership, contacts: Vec<String>) {
    // Addresses were known at the start.
    let names = contacts.into_iter().filter(|contact| contact.parse::<SocketAddr>().is_err()).collect();
    resolve_all(names, resolve, |address| {
        // A full queue is as good as a lost packet: gossip has other ways, and the next start asks again.
        let _called = membership.announce(address);
    })
    .await;
}

async fn resolve_all<Resolving: Future<Output = Option<SocketAddr>>>(
    mut names: Vec<String>,
    resolve: impl Fn(String) -> Resolving,
    mut found: impl FnMut(SocketAddr),
) {
    names.sort();
    names.dedup();
    while !names.is_empty() {
        let mut left = Vec::new();
        for name in names {
            match resolve(name.clone()).await {
                Some(address) => found(address),
                None => left.push(name),
            }
        }
        names = left;
        if !names.is_empty() {
            tracing::debug!(?names, "names of nodes do not resolve yet");
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }
}

async fn resolve(name: String) -> Option<SocketAddr> {
    tokio::net::lookup_host(name).await.ok()?.next()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_tried_until_it_resolves() {
        let (tries, found) = (Cell::new(0), RefCell::new(Vec::new()));
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let resolve = |name: String| {
            tries.set(tries.get() + 1);
            let is_up = tries.get() > 3;
            async move { (name == "a:1" || is_up).then(|| address(if name == "a:1" { 1 } else { 2 })) }
        };
        let names = ["b:2", "a:1", "b:2"].map(str::to_owned).to_vec();
        resolve_all(names, resolve, |address| found.borrow_mut().push(address)).await;
        assert_eq!(*found.borrow(), [address(1), address(2)]);
        assert_eq!(tries.get(), 4, "what is resolved is not asked again");
    }

    #[tokio::test]
    async fn an_address_needs_no_names_and_a_name_that_does_not_resolve_no_start() {
        assert_eq!(own_address("10.1.2.3:7000").await, SocketAddr::from(([10, 1, 2, 3], 7000)));
        let fallback = own_address("no-such-host.invalid:7000").await;
        assert_eq!((fallback.port(), fallback.ip().is_unspecified()), (7000, false));
    }
}

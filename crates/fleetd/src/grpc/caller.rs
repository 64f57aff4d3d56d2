//! Who calls. Whether a caller may call at all is decided by the listener before any service is asked.

use tonic::Request;

use crate::listener::PeerIdentity;

/// Marks a request that a node passed on for a client, so that it is passed on only once.
pub(super) const FORWARDED: &str = "fleet-forwarded";

/// Whether another node passed this request on.
pub(super) fn is_forwarded<T>(request: &Request<T>) -> bool {
    let from_node = matches!(PeerIdentity::of_request(request.extensions()), PeerIdentity::Node(_));
    from_node && request.metadata().contains_key(FORWARDED)
}

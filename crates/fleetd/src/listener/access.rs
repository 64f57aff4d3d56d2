//! Which calls an identity may make at all: one pure table, and the layer that asks it before any service does. Finer
//! rules are the services' own.
//!
//! Invariant: a call that the table does not name is refused.

use std::task::{Context, Poll};

use fleet_api::pb::peer::peer_server;
use fleet_api::pb::v1::admission_server;
use fleet_api::status::status_of;
use fleet_core::{Error, ErrorKind};
use futures_util::future::{Either, Ready, ready};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::listener::identity::PeerIdentity;

const RENEWAL: &str = "RenewCertificate";

/// The protocols of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC for clients.
    Client,
    /// gRPC between nodes.
    Peer,
    /// Links of remote actors.
    Actors,
}

impl Protocol {
    /// The word for it in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Actors => "actors",
        }
    }
}

/// Whether `identity` may call `path` (`/package.Service/Method`) on `protocol`.
///
/// # Errors
/// `Unauthenticated` if a certificate is missing, `PermissionDenied` if it is not enough.
pub(crate) fn check(protocol: Protocol, path: &str, identity: PeerIdentity) -> Result<(), Error> {
    let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
    let denied = || Err(Error::new(ErrorKind::PermissionDenied, format!("{identity} may not call {path}")));
    match (protocol, identity) {
        (Protocol::Client, _) if service == admission_server::SERVICE_NAME => Ok(()),
        (Protocol::Client, PeerIdentity::Node(_) | PeerIdentity::Admin(_) | PeerIdentity::Development) => Ok(()),
        (Protocol::Client, PeerIdentity::Anonymous) => {
            Err(Error::new(ErrorKind::Unauthenticated, "this fleet asks for a credential").with_next_step(
                "Copy `admin.json` from the data directory of the node that founded the fleet to \
                 `~/.config/fleet/credential.json`, or name it with `--credential`.",
            ))
        }
        (Protocol::Peer, PeerIdentity::Node(_)) => Ok(()),
        (Protocol::Peer, PeerIdentity::ExpiredNode(_)) if service == peer_server::SERVICE_NAME && method == RENEWAL => {
            Ok(())
        }
        (Protocol::Client | Protocol::Peer | Protocol::Actors, _) => denied(),
    }
}

/// Puts the check before the services of `protocol`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessLayer {
    protocol: Protocol,
}

impl AccessLayer {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self { protocol }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { protocol: self.protocol, inner }
    }
}

/// Services behind the check.
#[derive(Clone, Debug)]
pub(crate) struct Guarded<S> {
    protocol: Protocol,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let identity = request.extensions().get().copied().unwrap_or(PeerIdentity::Anonymous);
        match check(self.protocol, request.uri().path(), identity) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(refusal) => Either::Left(ready(Ok(status_of(&refusal).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::NodeId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_may_call_what() {
        let node = NodeId::generate();
        let identities = [
            PeerIdentity::Node(node),
            PeerIdentity::ExpiredNode(node),
            PeerIdentity::Admin(Uuid::now_v7()),
            PeerIdentity::Development,
            PeerIdentity::Anonymous,
        ];
        let denied = Some(ErrorKind::PermissionDenied);
        let unknown = Some(ErrorKind::Unauthenticated);
        for (protocol, path, expected) in [
            (Protocol::Client, "/fleet.v1.Admission/Join", [None, None, None, None, None]),
            (Protocol::Client, "/fleet.v1.Fleet/Submit", [None, denied, None, None, unknown]),
            (Protocol::Client, "/fleet.v1.Admission", [None, denied, None, None, unknown]),
            (Protocol::Client, "", [None, denied, None, None, unknown]),
            (Protocol::Peer, "/fleet.peer.v1.Peer/Group", [None, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Peer/RenewCertificate", [None, None, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Peer/RenewCertificateFor", [None, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.v1.Fleet/RenewCertificate", [None, denied, denied, denied, denied]),
            (Protocol::Actors, "/fleet.peer.v1.Peer/Group", [denied; 5]),
        ] {
            for (identity, expected) in identities.into_iter().zip(expected) {
                let refusal = check(protocol, path, identity).err().map(|error| error.kind);
                assert_eq!(refusal, expected, "{identity} {path}");
            }
        }
    }
}

//! Which calls an identity may make at all: one pure table, and the layer that asks it before any service does. Finer
//! rules are the services' own.
//!
//! Invariant: a call that the table does not name is refused.

use std::task::{Context, Poll};

use fleet_api::pb::peer::{peer_server, sites_server};
use fleet_api::pb::v1::{admission_server, catalog_server, fleet_server};
use fleet_api::status::status_of;
use fleet_core::{Error, ErrorKind};
use futures_util::future::{Either, Ready, ready};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::listener::identity::PeerIdentity;

const RENEWAL: &str = "RenewCertificate";
const LINK: &str = "Link";

/// What nodes ask each other of what clients ask: what is passed on to the leader, and what `doctor` asks of every node.
/// The rest is answered by the node that a client asks, so no node has a reason to ask it.
const ASKED_BY_NODES: &[&str] = &[
    "Submit",
    "GetJob",
    "ListJobs",
    "WatchJob",
    "GetJournal",
    "GetLogs",
    "ControlJob",
    "RetryJob",
    "DrainNode",
    "RemoveNode",
    "RemoveSite",
    "CreateToken",
    "ListTokens",
    "RevokeToken",
    "GetStatus",
    "RunDoctor",
];

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
pub(crate) fn check(protocol: Protocol, path: &str, identity: &PeerIdentity) -> Result<(), Error> {
    let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
    let denied = || Err(Error::new(ErrorKind::PermissionDenied, format!("{identity} may not call {path}")));
    match (protocol, identity) {
        (Protocol::Client, _) if service == admission_server::SERVICE_NAME => Ok(()),
        (Protocol::Client, PeerIdentity::Admin(_) | PeerIdentity::Development) => Ok(()),
        (Protocol::Client, PeerIdentity::Anonymous) => {
            Err(Error::new(ErrorKind::Unauthenticated, "this fleet asks for a credential").with_next_step(
                "Copy `admin.json` from the data directory of the node that founded the fleet to \
                 `~/.config/fleet/credential.json`, or name it with `--credential`.",
            ))
        }
        (Protocol::Peer, PeerIdentity::Node(_))
            if service != catalog_server::SERVICE_NAME
                && (service != fleet_server::SERVICE_NAME || ASKED_BY_NODES.contains(&method)) =>
        {
            Ok(())
        }
        (Protocol::Peer, PeerIdentity::OtherSite(..)) if service == sites_server::SERVICE_NAME && method == LINK => {
            Ok(())
        }
        // A seed of another site passes on what a joiner asks of the fleet's registry.
        (Protocol::Peer, PeerIdentity::OtherSite(..)) if service == admission_server::SERVICE_NAME => Ok(()),
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
        let identity = request.extensions().get().unwrap_or(&PeerIdentity::Anonymous);
        match check(self.protocol, request.uri().path(), identity) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(refusal) => Either::Left(ready(Ok(status_of(&refusal).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{NodeId, SiteName};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_may_call_what() {
        let node = NodeId::generate();
        let identities = [
            PeerIdentity::Node(node),
            PeerIdentity::OtherSite(node, SiteName::default()),
            PeerIdentity::ExpiredNode(node),
            PeerIdentity::Admin(Uuid::now_v7()),
            PeerIdentity::Development,
            PeerIdentity::Anonymous,
        ];
        let denied = Some(ErrorKind::PermissionDenied);
        let unknown = Some(ErrorKind::Unauthenticated);
        for (protocol, path, expected) in [
            (Protocol::Client, "/fleet.v1.Admission/Join", [None; 6]),
            (Protocol::Client, "/fleet.v1.Fleet/Submit", [denied, denied, denied, None, None, unknown]),
            (Protocol::Client, "/fleet.v1.Fleet/GetStatus", [denied, denied, denied, None, None, unknown]),
            (Protocol::Client, "/fleet.v1.Admission", [denied, denied, denied, None, None, unknown]),
            (Protocol::Client, "", [denied, denied, denied, None, None, unknown]),
            (Protocol::Peer, "/fleet.peer.v1.Peer/Group", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Peer/Heartbeats", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Peer/GetKeyring", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Peer/RenewCertificate", [None, denied, None, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Peer/RenewCertificateFor", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Sites/Link", [None, None, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Sites/Relay", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Sites/Deliver", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.peer.v1.Sites/GetKnownSites", [None, denied, denied, denied, denied, denied]),
            (Protocol::Client, "/fleet.peer.v1.Sites/Link", [denied, denied, denied, None, None, unknown]),
            (Protocol::Peer, "/fleet.v1.Fleet/RenewCertificate", [denied; 6]),
            (Protocol::Peer, "/fleet.v1.Fleet/Submit", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.v1.Fleet/CreateToken", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.v1.Fleet/RecoverSite", [denied; 6]),
            (Protocol::Peer, "/fleet.v1.Fleet/ListNodes", [denied; 6]),
            (Protocol::Client, "/fleet.v1.Catalog/Deploy", [denied, denied, denied, None, None, unknown]),
            (Protocol::Peer, "/fleet.v1.Catalog/Deploy", [denied; 6]),
            (Protocol::Peer, "/fleet.peer.v1.CatalogSync/Ask", [None, denied, denied, denied, denied, denied]),
            (Protocol::Peer, "/fleet.v1.Admission/Join", [None, None, denied, denied, denied, denied]),
            (Protocol::Actors, "/fleet.peer.v1.Peer/Group", [denied; 6]),
        ] {
            for (identity, expected) in identities.iter().zip(expected) {
                let refusal = check(protocol, path, identity).err().map(|error| error.kind);
                assert_eq!(refusal, expected, "{identity} {path}");
            }
        }
    }

    /// What is passed on and not in the table would be refused only where the node that a client asks does not lead.
    #[test]
    fn nodes_may_ask_what_nodes_ask_and_nothing_else() {
        let sources = [
            include_str!("../grpc/fleet.rs"),
            include_str!("../grpc/fleet/jobs.rs"),
            include_str!("../grpc/doctor.rs"),
        ]
        .concat();
        let calls = sources.split("fleet_client(").skip(1).filter_map(|call| call.split_once(").")?.1.split_once('('));
        let upper = |word: &str| word[..1].to_uppercase() + &word[1..];
        let mut asked: Vec<String> = calls.map(|(method, _)| method.split('_').map(upper).collect()).collect();
        // How far another node is away is measured by its status.
        assert!(include_str!("../grpc/doctor/pairs.rs").contains("client.get_status("));
        asked.push("GetStatus".to_owned());
        asked.sort();
        let mut may = ASKED_BY_NODES.to_vec();
        may.sort_unstable();
        assert_eq!(asked, may);
    }
}

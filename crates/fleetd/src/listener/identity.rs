//! Who is at the other end of a connection. Every request carries it as an extension.
//!
//! Invariant: a certificate that has expired never yields the same identity as one that is valid.

use fleet_api::CertificateFacts;
use fleet_api::Subject;
use fleet_core::{Error, ErrorKind, NodeId, Timestamp};
use uuid::Uuid;

use crate::listener::Policy;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A node of the fleet.
    Node(NodeId),
    /// A node whose certificate has expired, which may only ask for a new one.
    ExpiredNode(NodeId),
    /// The holder of an operator's credential.
    Admin(Uuid),
    /// Somebody on this machine, where the fleet is a development fleet.
    Development,
    /// Nobody known, who may only ask to join.
    Anonymous,
}

impl PeerIdentity {
    /// Who shows `certificate`, already verified, at `now`; or nothing.
    pub(crate) fn of(certificate: Option<&CertificateFacts>, policy: Policy, now: Timestamp) -> Self {
        match certificate.map(|facts| (facts.name.subject, facts.not_after)) {
            Some((Subject::Node(node), not_after)) if now > not_after => Self::ExpiredNode(node),
            Some((Subject::Node(node), _)) => Self::Node(node),
            Some((Subject::Admin(admin), _)) => Self::Admin(admin),
            None if policy == Policy::Development => Self::Development,
            None => Self::Anonymous,
        }
    }

    /// The identity of who sent the request with these extensions.
    pub fn of_request(extensions: &tonic::Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self::Anonymous)
    }

    /// The node, where only a node with a valid certificate may call.
    ///
    /// # Errors
    /// `PermissionDenied` for anyone else.
    pub fn require_node(self) -> Result<NodeId, Error> {
        match self {
            Self::Node(node) => Ok(node),
            other => Err(Error::new(ErrorKind::PermissionDenied, format!("{other} is not a node of this fleet"))),
        }
    }

    /// The node, where an expired certificate will do: to renew it.
    ///
    /// # Errors
    /// `PermissionDenied` for anyone else.
    pub fn require_renewing_node(self) -> Result<NodeId, Error> {
        match self {
            Self::ExpiredNode(node) => Ok(node),
            other => other.require_node(),
        }
    }
}

impl std::fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::ExpiredNode(node) => write!(f, "node {node} with an expired certificate"),
            Self::Admin(admin) => write!(f, "admin {admin}"),
            Self::Development => f.write_str("a developer on this machine"),
            Self::Anonymous => f.write_str("somebody without a certificate"),
        }
    }
}

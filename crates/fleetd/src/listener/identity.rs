//! Who is at the other end of a connection. Every request carries it as an extension.
//!
//! Invariants: a certificate that has expired never yields the same identity as one that is valid, nor one of another site
//! the same as one of ours.

use fleet_api::CertificateFacts;
use fleet_api::Subject;
use fleet_core::{Error, ErrorKind, NodeId, SiteName, Timestamp};
use uuid::Uuid;

use crate::listener::Policy;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A node of our site.
    Node(NodeId),
    /// A node of another site of the fleet.
    OtherSite(NodeId, SiteName),
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
    /// Who shows `certificate` of a node or an operator of `site`, already verified, at `now`; or nothing.
    ///
    /// # Errors
    /// `Unauthenticated` for a node of another site than `own` whose certificate has expired: it renews at its own.
    pub(crate) fn of(
        certificate: Option<(&CertificateFacts, SiteName)>,
        own: &SiteName,
        policy: Policy,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let Some((facts, site)) = certificate else {
            return Ok(if policy == Policy::Development { Self::Development } else { Self::Anonymous });
        };
        let is_expired = now > facts.not_after;
        match facts.name.subject {
            Subject::Node(node) if site != *own && is_expired => {
                let message = format!("node {node} of site `{site}` shows an expired certificate");
                Err(Error::new(ErrorKind::Unauthenticated, message))
            }
            Subject::Node(node) if site != *own => Ok(Self::OtherSite(node, site)),
            Subject::Node(node) if is_expired => Ok(Self::ExpiredNode(node)),
            Subject::Node(node) => Ok(Self::Node(node)),
            Subject::Admin(admin) => Ok(Self::Admin(admin)),
        }
    }

    /// The identity of who sent the request with these extensions.
    pub fn of_request(extensions: &tonic::Extensions) -> Self {
        extensions.get().cloned().unwrap_or(Self::Anonymous)
    }

    /// The node, where only a node of our site with a valid certificate may call.
    ///
    /// # Errors
    /// `PermissionDenied` for anyone else.
    pub fn require_node(self) -> Result<NodeId, Error> {
        match self {
            Self::Node(node) => Ok(node),
            other => Err(Error::new(ErrorKind::PermissionDenied, format!("{other} is not a node of this site"))),
        }
    }

    /// The other site and its node, where only those may call.
    ///
    /// # Errors
    /// `PermissionDenied` for anyone else.
    pub fn require_other_site(self) -> Result<(NodeId, SiteName), Error> {
        match self {
            Self::OtherSite(node, site) => Ok((node, site)),
            other => Err(Error::new(ErrorKind::PermissionDenied, format!("{other} is not a node of another site"))),
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
            Self::OtherSite(node, site) => write!(f, "node {node} of site {site}"),
            Self::ExpiredNode(node) => write!(f, "node {node} with an expired certificate"),
            Self::Admin(admin) => write!(f, "admin {admin}"),
            Self::Development => f.write_str("a developer on this machine"),
            Self::Anonymous => f.write_str("somebody without a certificate"),
        }
    }
}

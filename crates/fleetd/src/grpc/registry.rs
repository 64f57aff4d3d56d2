//! Joiners for another site than this node's: they are sent to that site's nodes, or to the fleet's registry, which records
//! a site that does not exist yet for the node that founds it.
//!
//! Invariants: only the registry's log decides who founds a site, and only under that node's key; the root signs the new
//! site's authority and never has its key. Where a site's nodes answer is told to whoever shows a token of the fleet: that
//! is no secret, and only the site itself admits.

use std::time::Duration;

use fleet_api::Issuer;
use fleet_api::pb::v1;
use fleet_api::pb::v1::admission_client::AdmissionClient;
use fleet_api::status::{error_of, status_of};
use fleet_core::{Digest, Error, ErrorKind, GroupId, SiteName};
use fleet_replication::command::{Action, Outcome, Refusal, SITES_VERSION, SiteFounding};
use fleet_store::StateReader;
use fleet_store::record::{Payload, SiteRecord, TokenId};
use fleet_store::state::{jobs, members, sites};
use tonic::{Request, Response, Status};

use super::admission::{AdmissionService, Joiner};
use crate::notes::own_record;
use crate::site::{read_failed, refused};
use crate::trust::authority::SigningRequest;

/// How long one node of the first site may take to answer for the registry.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Who answers a joiner.
pub(super) enum Destination {
    /// This site's leader: the joiner is for this site.
    Here,
    /// This site's leader, who keeps the registry.
    Registry,
    /// The leader of the first site, who keeps the registry.
    OtherRegistry,
    /// The nodes of its own site, at these addresses.
    Site(Vec<String>),
}

/// What a joiner hears whose site has nodes at `contacts`.
pub(super) fn sent_on(contacts: Vec<String>) -> v1::JoinResponse {
    v1::JoinResponse { elsewhere: contacts, ..v1::JoinResponse::default() }
}

impl AdmissionService {
    /// Who answers `request`, as far as this node knows. It may know less than the registry, and never more.
    ///
    /// # Errors
    /// For a request whose site or token has not the right form.
    pub(super) fn destination(&self, request: &v1::JoinRequest) -> Result<Destination, Error> {
        if request.site.is_empty() || request.site == self.identity.site.as_str() {
            return Ok(Destination::Here);
        }
        let site = site_of(request)?;
        self.token(&request.token)?;
        let public_key = SigningRequest::parse(&request.csr)?.public_key_digest();
        match sites::site(&self.site.reader()?, &site).map_err(read_failed)? {
            // Its founder may have to ask for its site again.
            Some(known) if known.public_key != public_key => Ok(Destination::Site(known.contacts)),
            _ if self.identity.keeps_registry() => Ok(Destination::Registry),
            _ => Ok(Destination::OtherRegistry),
        }
    }

    /// Records the site of a joiner that founds it; tells any other joiner where the site is, or that there is none.
    pub(super) async fn record(self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Error> {
        let site = site_of(&request)?;
        let joiner = Joiner::check(&request, &site)?;
        let token = self.token(&request.token)?.map(|token| (token.id, token.secret_digest()));
        let state = self.site.current_reader().await?;
        check_gate(&state, &format!("found site `{site}`"))?;
        let public_key = joiner.signing_request.public_key_digest();
        if let Some(known) = sites::site(&state, &site).map_err(read_failed)?
            && known.public_key != public_key
        {
            return Ok(sent_on(known.contacts));
        }
        let Some(founding) = &request.founding else {
            check_token(&state, token, &site)?;
            return Ok(v1::JoinResponse { unfounded: true, ..v1::JoinResponse::default() });
        };
        let malformed = || Error::new(ErrorKind::InvalidInput, "found a site: the group's id is not 16 bytes");
        let group = GroupId::from_slice(&founding.group_id).ok_or_else(malformed)?;
        let signing_request = SigningRequest::parse(&founding.csr)?;
        if sites::site(&state, &site).map_err(read_failed)?.is_none() {
            // Whoever can reach the port may ask: the root signs, and the log grows, only for who has a token.
            check_token(&state, token, &site)?;
        }
        let authority = self.trust.authority(&state)?;
        let signed = authority.issue_site(&signing_request, &site, self.trust.now())?;
        let action = Action::FoundSite(Box::new(SiteFounding {
            site: site.clone(),
            token,
            group,
            founder: joiner.node,
            public_key,
            authority: Payload::from(signed.to_vec()),
            contacts: vec![joiner.profile.address],
        }));
        match self.site.propose(action).await {
            Ok(Outcome::SiteFounded(record)) => {
                tracing::info!(%site, founder = %record.founder, "site recorded");
                self.founded(&site, &record, authority.root())
            }
            Ok(_) => Err(Error::new(ErrorKind::Internal, "found a site: the group gave another answer")),
            // Another was first.
            Err(error) if error.kind == ErrorKind::Conflict => {
                let known = sites::site(&self.site.reader()?, &site).map_err(read_failed)?;
                known.map(|known| sent_on(known.contacts)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// What the founder of `site` gets, the same at every repeat but for what changed in the fleet.
    fn founded(&self, site: &SiteName, record: &SiteRecord, root: &[u8]) -> Result<v1::JoinResponse, Error> {
        let state = self.site.reader()?;
        let mut others = vec![other_site(self.identity.site.as_str(), &own_record(&self.site, &state)?)];
        let known = sites::sites(&state).map_err(read_failed)?.into_iter();
        others.extend(known.filter(|(name, _)| name != site).map(|(name, record)| other_site(name.as_str(), &record)));
        let token = record.token.as_ref();
        Ok(v1::JoinResponse {
            fleet_id: self.identity.fleet_id.as_bytes().to_vec(),
            certificates: vec![record.authority.as_slice().to_vec(), root.to_vec()],
            root: root.to_vec(),
            site: site.to_string(),
            group_id: record.group.as_bytes().to_vec(),
            dev: self.identity.dev,
            first_site: self.identity.first_site().to_string(),
            link_secret: self.identity.secret_between_sites().map(|secret| secret.to_vec()).unwrap_or_default(),
            founded: Some(v1::SiteFounded {
                token_id: token.map(|token| token.id.0),
                token_secret: token.map(|token| token.secret.0.to_vec()).unwrap_or_default(),
                token_uses: token.map(|token| token.uses_left).unwrap_or_default(),
                token_expires_ms: token.map(|token| token.expires_at.0).unwrap_or_default(),
                sites: others,
            }),
            ..v1::JoinResponse::default()
        })
    }

    /// Asks the registry, by whichever node of the first site can be reached.
    pub(super) async fn ask_registry(&self, request: v1::JoinRequest) -> Result<Response<v1::JoinResponse>, Status> {
        let first = self.identity.first_site();
        let contacts = self.registry_contacts(first).map_err(|error| status_of(&error))?;
        let unreachable = || {
            let message = format!("ask the fleet's registry: no node of site `{first}` can be reached from here");
            Error::new(ErrorKind::Unavailable, message)
                .with_next_step("New sites are recorded there. Try again when the link to it is back.")
        };
        for contact in contacts {
            let answer = async {
                let (dialer, runtime) = (self.site.peers().dialer(), self.site.peers().runtime());
                let channel = dialer.channel_to_site(runtime, &contact, Issuer::Root)?;
                let mut onward = Request::new(request.clone());
                onward.set_timeout(ANSWER_TIMEOUT);
                let answer = AdmissionClient::new(channel).join(onward).await;
                answer.map_err(|status| error_of(&status))
            };
            match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if !error.kind.is_retryable() => return Err(status_of(&error)),
                Ok(Err(error)) => tracing::debug!(contact, %error, "a node of the first site did not answer"),
                Err(_) => tracing::debug!(contact, "a node of the first site did not answer in time"),
            }
        }
        Err(status_of(&unreachable()))
    }

    fn registry_contacts(&self, first: &SiteName) -> Result<Vec<String>, Error> {
        let known = sites::site(&self.site.reader()?, first).map_err(read_failed)?;
        Ok(known.map(|known| known.contacts).unwrap_or_default())
    }
}

/// Refuses `operation` while some node of this site may not know of sites. Right after the founding of the fleet, or an
/// upgrade, that passes within seconds.
///
/// # Errors
/// `Unavailable` then.
pub(super) fn check_gate(state: &StateReader, operation: &str) -> Result<(), Error> {
    if jobs::site(state).map_err(read_failed)?.gate >= SITES_VERSION {
        return Ok(());
    }
    let message = format!("{operation}: not every node of this site is known to have a program that knows of sites");
    Err(Error::new(ErrorKind::Unavailable, message)
        .with_next_step("Upgrade fleetd on all of them, and start or remove those that are down."))
}

/// Refuses the `token` of a joiner that the log would refuse when it founds `site`: it need not make a key for that.
fn check_token(state: &StateReader, token: Option<(TokenId, Digest)>, site: &SiteName) -> Result<(), Error> {
    let Some((token, secret)) = token else { return Ok(()) };
    let refusal = match members::token(state, token).map_err(read_failed)? {
        None => Refusal::TokenForeign(token),
        Some(record) if record.secret != secret => Refusal::TokenSecretWrong(token),
        Some(record) if record.site != *site => Refusal::TokenOfSite { token, site: record.site },
        Some(_) => return Ok(()),
    };
    Err(refused(&refusal))
}

fn site_of(request: &v1::JoinRequest) -> Result<SiteName, Error> {
    request.site.parse().map_err(|problem| Error::new(ErrorKind::InvalidInput, format!("join: {problem}")))
}

fn other_site(name: &str, record: &SiteRecord) -> v1::OtherSite {
    v1::OtherSite {
        name: name.to_owned(),
        group_id: record.group.as_bytes().to_vec(),
        founder: record.founder.as_bytes().to_vec(),
        public_key: record.public_key.0.to_vec(),
        authority: record.authority.as_slice().to_vec(),
        contacts: record.contacts.clone(),
        contacts_ms: record.contacts_at.0,
        founded_ms: record.founded_at.0,
    }
}

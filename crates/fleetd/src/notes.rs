//! What sites tell each other of the fleet's sites, over the links between them: each says where its own nodes answer, and
//! the first one, which keeps the registry, also which sites there are.
//!
//! Invariant: of a site only the site itself is believed, and the registry; nobody else can bring in a site or move one.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::{Clock, Digest, Error, ErrorKind, SiteName, SystemClock, Timestamp, limits};
use fleet_node::ports::{SiteServer, SiteTopic, Sites};
use fleet_replication::command::{Action, SITES_VERSION, SiteNote};
use fleet_store::StateReader;
use fleet_store::record::{NodeStanding, Payload, SiteRecord};
use fleet_store::state::{jobs, members, sites};
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::site::{Site, read_failed};
use crate::trust::keeper::site_certificate;

/// Version of the messages' format, their first byte.
const FORMAT: u8 = 1;
/// Sites noted by one command: an entry of the log is bounded.
const NOTES_AT_ONCE: usize = 8;
/// How far ahead of this node's clock a word about another site may be stamped.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(600);
/// How often a site that is linked is asked.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// What one site asks another.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    /// The site that asks.
    own: SiteNote,
    /// Digest of what it knows of all that the other would tell.
    seen: Digest,
}

/// Answers other sites, and asks them. A cheap handle.
#[derive(Clone)]
pub struct Notes {
    site: Site,
    first_site: SiteName,
}

impl Notes {
    /// The notes of `site` in a fleet whose registry is kept at `first_site`.
    pub fn new(site: Site, first_site: SiteName) -> Self {
        Self { site, first_site }
    }

    /// Asks every site that is linked, now and then, for as long as the node runs; only the leader does.
    pub async fn run(self, others: Arc<dyn Sites>) {
        let mut known = others.known();
        loop {
            if self.site.group().serving_term().is_some() {
                let linked = known.borrow_and_update().clone();
                for name in linked.iter().filter(|(_, site)| site.is_linked).map(|(name, _)| name) {
                    if let Err(error) = self.ask(others.as_ref(), name).await {
                        tracing::debug!(site = %name, %error, "another site told nothing of the fleet's sites");
                    }
                }
            }
            // A site that is linked anew is asked at once.
            let _changed = tokio::time::timeout(ASK_EVERY, wait_for_link(&mut known)).await;
        }
    }

    /// Asks the site called `name` what it tells, and tells it of this one.
    pub(crate) async fn ask(&self, others: &dyn Sites, name: &SiteName) -> Result<(), Error> {
        let state = self.site.reader()?;
        let own = SiteNote { site: self.name()?, record: own_record(&self.site, &state)? };
        let known = sites::sites(&state).map_err(read_failed)?;
        let told = known.iter().filter(|(site, _)| *name == self.first_site || site == name);
        let seen = digest(told.map(|(site, record)| (site, record)));
        let answer = others.ask(name.clone(), SiteTopic::Registry, encode(&Question { own, seen })?).await?;
        self.take(name, decode(&answer)?).await
    }

    /// What this site tells `from`, which has `seen` it before: nothing if that is all there is.
    fn told(&self, from: &SiteName, seen: Digest) -> Result<Vec<SiteNote>, Error> {
        let state = self.site.reader()?;
        let own = SiteNote { site: self.name()?, record: own_record(&self.site, &state)? };
        let noted = if own.site == self.first_site { sites::sites(&state).map_err(read_failed)? } else { Vec::new() };
        let others = noted.into_iter().filter(|(site, _)| site != from);
        let others = others.map(|(site, record)| SiteNote { site, record: public(record) });
        let mut told: Vec<SiteNote> = std::iter::once(own).chain(others).collect();
        told.sort_by(|one, other| one.site.cmp(&other.site));
        let is_seen = digest(told.iter().map(|note| (&note.site, &note.record))) == seen;
        Ok(if is_seen { Vec::new() } else { told })
    }

    fn name(&self) -> Result<SiteName, Error> {
        self.site.name().parse().map_err(|problem: String| Error::new(ErrorKind::Internal, problem))
    }

    /// Notes what `from` said, as far as it is believed and is news.
    async fn take(&self, from: &SiteName, notes: Vec<SiteNote>) -> Result<(), Error> {
        let state = self.site.reader()?;
        if jobs::site(&state).map_err(read_failed)?.gate < SITES_VERSION {
            return Ok(());
        }
        let known = sites::sites(&state).map_err(read_failed)?;
        let news = news(&known, from, &self.first_site, notes, SystemClock.now());
        for notes in news.chunks(NOTES_AT_ONCE) {
            self.site.propose(Action::NoteSites { notes: notes.to_vec() }).await?;
        }
        Ok(())
    }
}

impl SiteServer for Notes {
    fn answer(&self, from: SiteName, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        let notes = self.clone();
        Box::pin(async move {
            let question: Question = decode(&message)?;
            notes.take(&from, vec![question.own]).await?;
            encode(&notes.told(&from, question.seen)?)
        })
    }
}

/// Waits until another site is linked than those that were.
async fn wait_for_link(known: &mut tokio::sync::watch::Receiver<Arc<fleet_node::ports::KnownSites>>) {
    let linked = |known: &fleet_node::ports::KnownSites| {
        known.iter().filter(|(_, site)| site.is_linked).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let before = linked(&known.borrow());
    if known.wait_for(|known| linked(known) != before).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Of `notes`, told by `from`, those that are believed and news, given what is `known`.
fn news(
    known: &[(SiteName, SiteRecord)],
    from: &SiteName,
    first_site: &SiteName,
    notes: Vec<SiteNote>,
    now: Timestamp,
) -> Vec<SiteNote> {
    let known_of = |site: &SiteName| known.iter().find(|(name, _)| name == site).map(|(_, record)| record);
    let is_news = |note: &SiteNote| match known_of(&note.site) {
        Some(record) => {
            record.group == note.record.group
                && record.contacts != note.record.contacts
                && record.contacts_at < note.record.contacts_at
        }
        None => from == first_site,
    };
    let is_sound = |note: &SiteNote| {
        let contacts = &note.record.contacts;
        contacts.len() <= limits::SITE_CONTACTS_MAX
            && contacts.iter().all(|contact| {
                crate::config::is_host_port(contact) && crate::config::is_plain(contact, limits::ADDRESS_BYTES_MAX)
            })
    };
    let is_believed = |note: &SiteNote| note.site == *from || from == first_site;
    let mut notes = notes;
    notes.truncate(sites::SITES_MAX + 1);
    for note in &mut notes {
        let said_at = note.record.contacts_at;
        note.record.contacts_at = match known_of(&note.site).filter(|_| note.site == *from) {
            // What a site says of itself now is the latest there is, whatever its clock shows or once showed.
            Some(record) => said_at.min(now).max(Timestamp(record.contacts_at.0.saturating_add(1))),
            None => said_at.min(now.saturating_add(CLOCK_AHEAD_MAX)),
        };
    }
    notes.retain(|note| is_believed(note) && is_sound(note) && is_news(note));
    notes
}

/// `record` without what is the registry's own.
fn public(record: SiteRecord) -> SiteRecord {
    SiteRecord { token: None, ..record }
}

/// A digest of which sites there are and where they answer.
fn digest<'a>(told: impl Iterator<Item = (&'a SiteName, &'a SiteRecord)>) -> Digest {
    let mut text = String::new();
    for (site, record) in told {
        text.push_str(&format!("{site} {} {}\n", record.group, record.contacts.join(" ")));
    }
    Digest::of(text.as_bytes())
}

fn encode(message: &impl Serialize) -> Result<Payload, Error> {
    postcard::to_extend(message, vec![FORMAT])
        .map(Payload::from)
        .map_err(|source| Error::new(ErrorKind::Internal, "tell another site of the fleet's sites").with_source(source))
}

fn decode<T: DeserializeOwned>(message: &Payload) -> Result<T, Error> {
    let refused = |what: &str| Error::new(ErrorKind::InvalidInput, format!("read what another site tells: {what}"));
    match message.as_slice().split_first() {
        Some((&FORMAT, rest)) => {
            postcard::from_bytes(rest).map_err(|source| refused("it is malformed").with_source(source))
        }
        Some((format, _)) => Err(Error::new(ErrorKind::Unsupported, format!("sites tell in format {format}"))),
        None => Err(refused("it is empty")),
    }
}

/// This site as others note it, by what is applied in `state`.
///
/// # Errors
/// If the store failed, or nothing of the founding is applied yet.
pub(crate) fn own_record(site: &Site, state: &StateReader) -> Result<SiteRecord, Error> {
    let founding = jobs::site(state).map_err(read_failed)?.founding;
    let founding =
        founding.ok_or_else(|| Error::new(ErrorKind::Unavailable, "tell of this site: it is not founded"))?;
    let voters = site.group().status().borrow().voters();
    let mut nodes = members::nodes(state).map_err(read_failed)?;
    nodes.retain(|node| node.standing != NodeStanding::Removed);
    nodes.sort_by_key(|node| (!voters.contains(&node.id), node.id));
    let contacts = nodes.into_iter().map(|node| node.profile.address).take(limits::SITE_CONTACTS_MAX).collect();
    Ok(SiteRecord {
        group: founding.group,
        founder: founding.founder,
        public_key: Digest([0; 32]),
        authority: site_certificate(state)?,
        contacts,
        contacts_at: SystemClock.now(),
        founded_at: Timestamp(0),
        token: None,
    })
}

#[cfg(test)]
mod tests {
    use fleet_core::{GroupId, NodeId};

    use super::*;

    fn name(text: &str) -> SiteName {
        text.parse().unwrap()
    }

    fn record(group: u8, contact: &str) -> SiteRecord {
        SiteRecord {
            group: GroupId::from_bytes([group; 16]),
            founder: NodeId::from_bytes([group; 16]),
            public_key: Digest([group; 32]),
            authority: Payload::from("certificate"),
            contacts: vec![contact.to_owned()],
            contacts_at: Timestamp(1),
            founded_at: Timestamp(1),
            token: None,
        }
    }

    const NOW: Timestamp = Timestamp(1_000_000);

    fn note(site: &str, group: u8, contact: &str) -> SiteNote {
        SiteNote { site: name(site), record: SiteRecord { contacts_at: Timestamp(2), ..record(group, contact) } }
    }

    #[test]
    fn of_a_site_only_itself_and_the_registry_are_believed() {
        let known = [(name("plant"), record(1, "plant:1"))];
        let told = |from: &str, notes: Vec<SiteNote>| {
            let news = news(&known, &name(from), &name("default"), notes, NOW);
            news.into_iter().map(|note| note.site.to_string()).collect::<Vec<_>>()
        };
        let all = || vec![note("plant", 1, "moved:1"), note("shop", 2, "shop:1")];
        assert_eq!(told("default", all()), ["plant", "shop"]);
        assert_eq!(told("plant", all()), ["plant"], "it moved, and brings nobody in");
        assert_eq!(told("shop", all()), [""; 0], "a site that the registry did not tell of");
        assert_eq!(told("plant", vec![note("plant", 9, "moved:1")]), [""; 0], "another group");
        assert_eq!(told("default", vec![note("plant", 1, "plant:1")]), [""; 0], "no news");
        for contact in ["nowhere", "a\u{1b}b:1", "host:0"] {
            assert_eq!(told("plant", vec![note("plant", 1, contact)]), [""; 0], "{contact:?}");
        }
        let mut many = note("plant", 1, "a:1");
        many.record.contacts = vec!["a:1".to_owned(); limits::SITE_CONTACTS_MAX + 1];
        assert_eq!(told("plant", vec![many]), [""; 0]);
    }

    #[test]
    fn a_clock_that_was_wrong_once_does_not_hold_a_sites_addresses_for_ever() {
        let stamped = |at: u64, contact: &str| {
            let mut note = note("plant", 1, contact);
            note.record.contacts_at = Timestamp(at);
            note
        };
        let told = |known: u64, from: &str, note: SiteNote| {
            let mut record = record(1, "plant:1");
            record.contacts_at = Timestamp(known);
            let news = news(&[(name("plant"), record)], &name(from), &name("default"), vec![note], NOW);
            news.first().map(|note| note.record.contacts_at)
        };
        let far = 9_000_000_000;
        let bound = NOW.saturating_add(CLOCK_AHEAD_MAX);
        assert_eq!(told(1, "default", stamped(far, "moved:1")), Some(bound), "no further ahead than clocks may be");
        assert_eq!(told(1, "plant", stamped(far, "moved:1")), Some(NOW));
        assert_eq!(
            told(bound.0, "plant", stamped(5, "moved:1")),
            Some(Timestamp(bound.0 + 1)),
            "its own word is the latest"
        );
        assert_eq!(told(7, "default", stamped(5, "moved:1")), None, "an older word of somebody else");
    }

    #[test]
    fn messages_read_back_and_others_are_refused() {
        let question = Question { own: note("plant", 1, "plant:1"), seen: Digest::of(b"x") };
        let bytes = encode(&question).unwrap();
        let read: Question = decode(&bytes).unwrap();
        assert_eq!((read.own, read.seen), (question.own, question.seen));
        let mut later = bytes.as_slice().to_vec();
        later[0] = 2;
        assert_eq!(decode::<Question>(&Payload::from(later)).unwrap_err().kind, ErrorKind::Unsupported);
        let cut = Payload::from(bytes.as_slice()[..9].to_vec());
        assert_eq!(decode::<Question>(&cut).unwrap_err().kind, ErrorKind::InvalidInput);
        assert_eq!(decode::<Question>(&Payload::default()).unwrap_err().kind, ErrorKind::InvalidInput);
    }

    #[test]
    fn what_was_seen_is_told_by_names_groups_and_addresses() {
        let (one, mut other) = (record(1, "a:1"), record(1, "a:1"));
        let (plant, shop) = (name("plant"), name("shop"));
        let seen = digest([(&plant, &one)].into_iter());
        other.contacts_at = Timestamp(99);
        assert_eq!(seen, digest([(&plant, &other)].into_iter()), "when it was said is no news");
        other.contacts.push("b:1".to_owned());
        assert_ne!(seen, digest([(&plant, &other)].into_iter()));
        assert_ne!(seen, digest([(&shop, &one)].into_iter()));
        assert_ne!(seen, digest([(&plant, &one), (&shop, &one)].into_iter()));
    }
}

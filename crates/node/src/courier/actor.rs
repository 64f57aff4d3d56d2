//! The courier's actor: plumbing between what is applied, what is known of other sites, and the letters under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::RactorMessage;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use fleet_core::{Clock, GroupId, SiteName};
use fleet_replication::AppliedEntry;
use fleet_replication::command::{Outcome, Refusal};
use fleet_replication::fsm::Event;
use fleet_store::record::{PeerSite, Serial};
use fleet_store::state::{jobs, moves};
use uuid::Uuid;

use super::exchange::Post;
use super::look::{Look, Looked, begin_moves};
use super::pace::{Exchanged, Pace};
use crate::Error;
use crate::ports::{Group, GroupStanding, KnownSites, RobotOffer, Sites};
use crate::session::LeaderTerm;

/// How often rests are looked at, and queued jobs for which there may be a robot elsewhere.
const TICK: Duration = Duration::from_millis(100);
/// What the courier is told.
#[derive(Debug, RactorMessage)]
pub(crate) enum CourierMessage {
    Tick,
    Standing(GroupStanding),
    Known(Arc<KnownSites>),
    /// There is something for these groups; `None`: for any of them.
    News(Option<Vec<GroupId>>),
    /// A letter came to its end.
    Ended {
        term: LeaderTerm,
        peer: GroupId,
        exchanged: Exchanged,
        told: Serial,
    },
    /// Queued jobs were looked at, and those that another site has robots for are on their way.
    LookedAt {
        term: LeaderTerm,
        look: Look,
    },
}

/// What the courier is made of.
pub(crate) struct CourierArguments {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) group: Arc<dyn Group>,
    pub(crate) sites: Arc<dyn Sites>,
}

/// One leadership of this node.
struct Leading {
    term: LeaderTerm,
    own: PeerSite,
    paces: BTreeMap<GroupId, (Pace, Serial)>,
    look: Look,
}

pub(crate) struct CourierState {
    arguments: Arc<CourierArguments>,
    known: Arc<KnownSites>,
    standing: GroupStanding,
    leading: Option<Leading>,
    tasks: Vec<JoinHandle<()>>,
}

/// The courier.
pub(crate) struct Courier;

impl Actor for Courier {
    type Msg = CourierMessage;
    type State = CourierState;
    type Arguments = Arc<CourierArguments>;

    async fn pre_start(
        &self,
        myself: ActorRef<CourierMessage>,
        arguments: Arc<CourierArguments>,
    ) -> Result<CourierState, ActorProcessingErr> {
        let (group, sites) = (&arguments.group, &arguments.sites);
        let tasks = vec![
            tokio::spawn(follow_applied(myself.clone(), group.applied())),
            tokio::spawn(crate::tasks::follow(myself.clone(), group.standing(), CourierMessage::Standing)),
            tokio::spawn(crate::tasks::follow(myself.clone(), sites.known(), CourierMessage::Known)),
            tokio::spawn(crate::tasks::tick(myself, TICK, || CourierMessage::Tick)),
        ];
        let known = Arc::default();
        Ok(CourierState { arguments, known, standing: GroupStanding::default(), leading: None, tasks })
    }

    async fn handle(
        &self,
        myself: ActorRef<CourierMessage>,
        message: CourierMessage,
        state: &mut CourierState,
    ) -> Result<(), ActorProcessingErr> {
        state.handle(&myself, message)?;
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<CourierMessage>, state: &mut CourierState) -> Result<(), ActorProcessingErr> {
        for task in &state.tasks {
            task.abort();
        }
        Ok(())
    }
}

/// Passes on for whom there is news; not each entry, so nothing piles up that matters.
async fn follow_applied(courier: ActorRef<CourierMessage>, mut applied: broadcast::Receiver<Arc<AppliedEntry>>) {
    loop {
        let news = match applied.recv().await {
            Ok(entry) => {
                let mut peers: Vec<GroupId> = entry.events.iter().filter_map(peer_of).collect();
                peers.sort_unstable();
                peers.dedup();
                if peers.is_empty() {
                    continue;
                }
                Some(peers)
            }
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if courier.cast(CourierMessage::News(news)).is_err() {
            return;
        }
    }
}

fn peer_of(event: &Event) -> Option<GroupId> {
    match event {
        Event::OutboxChanged { peer } => Some(*peer),
        _ => None,
    }
}

impl CourierState {
    fn handle(&mut self, myself: &ActorRef<CourierMessage>, message: CourierMessage) -> Result<(), Error> {
        match message {
            CourierMessage::Tick => {
                // A leader that has yet to found its site begins once it has.
                self.follow()?;
                self.look(myself)?;
            }
            CourierMessage::Standing(standing) => {
                self.standing = standing;
                self.follow()?;
            }
            CourierMessage::Known(known) => self.learn(known),
            CourierMessage::News(peers) => self.note(peers)?,
            CourierMessage::Ended { term, peer, exchanged, told } => self.ended(term, peer, exchanged, told),
            CourierMessage::LookedAt { term, look } => {
                if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term)
                    && leading.look == Look::UnderWay
                {
                    leading.look = look;
                }
            }
        }
        self.send(myself);
        Ok(())
    }

    fn follow(&mut self) -> Result<(), Error> {
        let standing = self.standing;
        if standing.serving == self.leading.as_ref().map(|leading| leading.term) {
            return Ok(());
        }
        self.leading = None;
        let Some(term) = standing.serving else { return Ok(()) };
        let reader = self.arguments.group.reader()?;
        let site = jobs::site(&reader).map_err(Error::store("read the site"))?;
        let Some(founding) = site.founding else { return Ok(()) };
        let own = PeerSite { group: founding.group, site: founding.site };
        self.leading = Some(Leading { term, own, paces: BTreeMap::new(), look: Look::From(None) });
        self.note(None)
    }

    fn note(&mut self, peers: Option<Vec<GroupId>>) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else { return Ok(()) };
        let peers = match peers {
            Some(peers) => peers,
            None => {
                let reader = self.arguments.group.reader()?;
                let rows = moves::peers(&reader).map_err(Error::store("read other groups"))?;
                rows.into_iter().map(|(peer, _)| peer).collect()
            }
        };
        for peer in peers {
            leading.pace(peer).0.news();
        }
        Ok(())
    }

    fn learn(&mut self, known: Arc<KnownSites>) {
        let before = std::mem::replace(&mut self.known, known);
        let Some(leading) = &mut self.leading else { return };
        for (name, site) in self.known.iter().filter(|(_, site)| site.is_linked) {
            if before.get(name).is_none_or(|before| !before.is_linked) {
                leading.pace(site.group).0.linked();
            }
        }
        if offers(&before) != offers(&self.known) {
            leading.look = Look::From(None);
        }
    }

    fn ended(&mut self, term: LeaderTerm, peer: GroupId, exchanged: Exchanged, told: Serial) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) else { return };
        let jitter = u32::try_from(Uuid::new_v4().as_u128() % 1_001).unwrap_or_default();
        let (pace, known) = leading.pace(peer);
        pace.ended(self.arguments.clock.boot_now(), exchanged, jitter);
        *known = told;
    }

    /// Begins the letters whose time has come.
    fn send(&mut self, myself: &ActorRef<CourierMessage>) {
        let Some(leading) = &mut self.leading else { return };
        let now = self.arguments.clock.boot_now();
        let (group, sites) = (Arc::clone(&self.arguments.group), Arc::clone(&self.arguments.sites));
        let post = Post { group, sites, own: leading.own.clone() };
        for (name, site) in self.known.iter() {
            let Some((pace, told)) = leading.paces.get_mut(&site.group) else { continue };
            if !pace.begin(now) {
                continue;
            }
            let peer = PeerSite { group: site.group, site: name.clone() };
            tokio::spawn(write(myself.clone(), post.clone(), leading.term, peer, *told));
        }
    }

    /// Looks at some of the queued jobs for which another site may have a robot.
    fn look(&mut self, myself: &ActorRef<CourierMessage>) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else { return Ok(()) };
        let clock = Arc::clone(&self.arguments.clock);
        let Some(after) = leading.look.due(clock.boot_now()) else { return Ok(()) };
        if self.known.values().all(|site| site.robots.is_empty()) {
            leading.look = Look::done(clock.boot_now());
            return Ok(());
        }
        let Looked { moving, up_to, has_room } = begin_moves(&*self.arguments.group, &self.known, after)?;
        leading.look = Look::UnderWay;
        let (term, myself) = (leading.term, myself.clone());
        let proposed = join_all(moving.into_iter().map(|moving| self.arguments.group.propose(moving.into())));
        tokio::spawn(async move {
            let is_unsent =
                |outcome: &Result<_, _>| matches!(outcome, Err(_) | Ok(Outcome::Refused(Refusal::OutboxFull(_))));
            let failed = proposed.await.iter().filter(|outcome| is_unsent(outcome)).count();
            if failed > 0 {
                tracing::debug!(
                    failed,
                    "jobs that another site has robots for were not sent: they are looked at again"
                );
            }
            let look = match up_to {
                _ if failed > 0 || !has_room => Look::blocked(clock.boot_now(), after),
                Some(place) => Look::From(Some(place)),
                None => Look::done(clock.boot_now()),
            };
            cast(&myself, CourierMessage::LookedAt { term, look });
        });
        Ok(())
    }
}

impl Leading {
    fn pace(&mut self, peer: GroupId) -> &mut (Pace, Serial) {
        // Nothing has to be passed before the first move.
        self.paces.entry(peer).or_insert_with(|| (Pace::default(), Serial::default().next(0)))
    }
}

fn offers(known: &KnownSites) -> Vec<(&SiteName, GroupId, &[RobotOffer])> {
    known.iter().map(|(name, site)| (name, site.group, site.robots.as_slice())).collect()
}

/// One letter, from its beginning to its end.
async fn write(courier: ActorRef<CourierMessage>, post: Post, term: LeaderTerm, to: PeerSite, told: Serial) {
    let peer = to.group;
    let (exchanged, told) = match post.exchange(&to, told).await {
        Ok(ended) => ended,
        Err(error) => {
            tracing::debug!(site = %to.site, error = %fleet_core::error::chain(&error), "a letter was not answered");
            (Exchanged::Failed, told)
        }
    };
    cast(&courier, CourierMessage::Ended { term, peer, exchanged, told });
}

fn cast(courier: &ActorRef<CourierMessage>, message: CourierMessage) {
    if courier.cast(message).is_err() {
        tracing::debug!("the courier is gone");
    }
}

//! The courier's actor: plumbing between what is applied, what is known of other sites, and the letters under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::RactorMessage;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use fleet_core::{BootInstant, Clock, GroupId, SiteName};
use fleet_replication::AppliedEntry;
use fleet_replication::command::{Outcome, Refusal};
use fleet_replication::fsm::Event;
use fleet_store::record::{PeerSite, Serial};
use fleet_store::state::{jobs, moves};
use uuid::Uuid;

use super::exchange::Post;
use super::letter::Composed;
use super::look::{Look, Looked, begin_moves};
use super::pace::{Exchanged, Pace};
use crate::Error;
use crate::ports::{Group, GroupStanding, KnownSites, RobotOffer, Sites};
use crate::session::LeaderTerm;

/// What the courier is told.
#[derive(Debug, RactorMessage)]
pub(crate) enum CourierMessage {
    /// A rest is over.
    Due,
    Standing(GroupStanding),
    Known(Arc<KnownSites>),
    /// There is something for these groups, or the site is another than before; `None`: for any of them.
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

/// The one alarm that is set: when it goes off, and what waits for it.
struct Alarm {
    at: BootInstant,
    task: JoinHandle<()>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) struct CourierState {
    arguments: Arc<CourierArguments>,
    known: Arc<KnownSites>,
    standing: GroupStanding,
    leading: Option<Leading>,
    alarm: Option<Alarm>,
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
            tokio::spawn(crate::tasks::follow(myself, sites.known(), CourierMessage::Known)),
        ];
        let (known, standing) = (Arc::default(), GroupStanding::default());
        Ok(CourierState { arguments, known, standing, leading: None, alarm: None, tasks })
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
                if !entry.events.iter().any(is_news) {
                    continue;
                }
                let mut peers: Vec<GroupId> = entry.events.iter().filter_map(peer_of).collect();
                peers.sort_unstable();
                peers.dedup();
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

/// Whether the courier has to be told. Nodes and the gate change as the site is founded and where more may be sent.
fn is_news(event: &Event) -> bool {
    matches!(event, Event::OutboxChanged { .. } | Event::NodeChanged { .. } | Event::GateRaised { .. })
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
            CourierMessage::Due => self.alarm = None,
            CourierMessage::Standing(standing) => {
                self.standing = standing;
                self.follow()?;
            }
            CourierMessage::Known(known) => self.learn(known),
            CourierMessage::News(peers) => {
                // A leader that has yet to found its site begins once it has.
                self.follow()?;
                self.note(peers)?;
            }
            CourierMessage::Ended { term, peer, exchanged, told } => self.ended(term, peer, exchanged, told),
            CourierMessage::LookedAt { term, look } => {
                if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term)
                    && leading.look == Look::UnderWay
                {
                    leading.look = look;
                }
            }
        }
        self.look(myself)?;
        self.send(myself);
        self.set_alarm(myself);
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
        self.leading = Some(Leading { term, own, paces: BTreeMap::new(), look: Look::Begins });
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
            leading.look = Look::Begins;
        }
    }

    fn ended(&mut self, term: LeaderTerm, peer: GroupId, exchanged: Exchanged, told: Serial) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) else { return };
        let jitter = u32::try_from(Uuid::new_v4().as_u128() % 1_001).unwrap_or_default();
        let (pace, known) = leading.pace(peer);
        pace.ended(self.arguments.clock.boot_now(), exchanged, jitter);
        *known = told.max(*known);
    }

    /// Begins the letters whose time has come. A site without a link is not asked: it is told when there is one.
    fn send(&mut self, myself: &ActorRef<CourierMessage>) {
        let Some(leading) = &mut self.leading else { return };
        let now = self.arguments.clock.boot_now();
        let (group, sites) = (Arc::clone(&self.arguments.group), Arc::clone(&self.arguments.sites));
        let post = Post { group, sites, own: leading.own.clone() };
        for (name, site) in self.known.iter().filter(|(_, site)| site.is_linked) {
            let Some((pace, told)) = leading.paces.get_mut(&site.group) else { continue };
            let peer = PeerSite { group: site.group, site: name.clone() };
            while let Some(walk) = pace.begin(now) {
                let composed = post.compose(&peer, walk);
                if let Ok(composed) = &composed {
                    pace.composed(composed.walk, composed.has_more);
                }
                tokio::spawn(write(myself.clone(), post.clone(), leading.term, peer.clone(), *told, composed));
            }
        }
    }

    /// Sets the alarm to the earliest of what rests.
    fn set_alarm(&mut self, myself: &ActorRef<CourierMessage>) {
        let due = self.leading.as_ref().and_then(|leading| {
            let linked = self.known.values().filter(|site| site.is_linked);
            let paces = linked.filter_map(|site| leading.paces.get(&site.group)?.0.due());
            paces.chain(leading.look.due_at()).min()
        });
        if self.alarm.as_ref().map(|alarm| alarm.at) == due {
            return;
        }
        let (clock, myself) = (Arc::clone(&self.arguments.clock), myself.clone());
        self.alarm = due.map(|at| {
            let task = tokio::spawn(async move {
                tokio::time::sleep(at.saturating_since(clock.boot_now())).await;
                cast(&myself, CourierMessage::Due);
            });
            Alarm { at, task }
        });
    }

    /// Looks at some of the queued jobs for which another site may have a robot.
    fn look(&mut self, myself: &ActorRef<CourierMessage>) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else { return Ok(()) };
        let clock = Arc::clone(&self.arguments.clock);
        let Some(after) = leading.look.due(clock.boot_now()) else { return Ok(()) };
        if self.known.values().all(|site| site.robots.is_empty()) {
            leading.look = Look::Idle;
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
                Some(place) => Look::goes_on(clock.boot_now(), place),
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
async fn write(
    courier: ActorRef<CourierMessage>,
    post: Post,
    term: LeaderTerm,
    to: PeerSite,
    told: Serial,
    composed: Result<Composed, fleet_core::Error>,
) {
    let peer = to.group;
    let ended = match composed {
        Ok(composed) => post.exchange(&to, told, composed).await,
        Err(error) => Err(error),
    };
    let (exchanged, told) = ended.unwrap_or_else(|error| {
        tracing::debug!(site = %to.site, error = %fleet_core::error::chain(&error), "a letter was not answered");
        (Exchanged::Failed, told)
    });
    cast(&courier, CourierMessage::Ended { term, peer, exchanged, told });
}

fn cast(courier: &ActorRef<CourierMessage>, message: CourierMessage) {
    if courier.cast(message).is_err() {
        tracing::debug!("the courier is gone");
    }
}

//! A node's courier: runs the production courier's own code ([`Post`], [`CourierServer`], [`Pace`]) on a small executor. What
//! it awaits is a proposal or an answer of the other site, both of which come as events of the simulation, so it does the
//! same for the same seed.

use std::collections::BTreeMap;
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fleet_core::{BootInstant, Error, ErrorKind, GroupId, NodeId, SiteName};
use fleet_node::ports::{Group, GroupStanding, KnownSite, KnownSites, RobotOffer, SiteServer, SiteTopic, Sites};
use fleet_node::routing::{self, Route};
use fleet_node::session::LeaderTerm;
use fleet_node::{CourierServer, Exchanged, Look, Looked, Pace, Post, begin_moves};
use fleet_replication::AppliedEntry;
use fleet_replication::command::{Action, Outcome};
use fleet_replication::fsm::Event;
use fleet_store::record::{CommandId, Content, JobSpec, Payload, PeerSite, Serial};
use fleet_store::state::queue::QueuePlace;
use fleet_store::{StateReader, Store};
use tokio::sync::{broadcast, oneshot, watch};

use crate::group::GroupPart;
use crate::message::{Message, Step};
use crate::scheduler::Reply;

/// How often in a hundred ticks a courier that does not know the other site's robots hears of them.
const LEARNS_PERCENT: usize = 2;
/// How long a courier waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Proposal = (Option<CommandId>, Action, oneshot::Sender<Result<Outcome, Error>>);
type Question = (Payload, oneshot::Sender<Result<Payload, Error>>);

/// The ports that the courier's code asks.
struct Port {
    store: Store,
    group: GroupId,
    proposals: Mutex<Vec<Proposal>>,
    questions: Mutex<Vec<Question>>,
    standing: watch::Sender<GroupStanding>,
    known: watch::Sender<Arc<KnownSites>>,
    applied: broadcast::Sender<Arc<AppliedEntry>>,
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}

impl Port {
    fn ask(&self, id: Option<CommandId>, action: Action) -> Later<Result<Outcome, Error>> {
        let (sender, receiver) = oneshot::channel();
        self.proposals.lock().unwrap_or_else(PoisonError::into_inner).push((id, action, sender));
        Box::pin(async { receiver.await.unwrap_or_else(|_| Err(unavailable("propose a command"))) })
    }
}

impl Group for Port {
    fn standing(&self) -> watch::Receiver<GroupStanding> {
        self.standing.subscribe()
    }

    fn propose(&self, action: Action) -> Later<Result<Outcome, Error>> {
        self.ask(None, action)
    }

    fn propose_as(&self, id: CommandId, action: Action) -> Later<Result<Outcome, Error>> {
        self.ask(Some(id), action)
    }

    fn confirm_leadership(&self) -> Later<Result<(), Error>> {
        Box::pin(ready(Err(unavailable("a courier asks for no confirmation"))))
    }

    fn takeover_time(&self) -> Later<Result<BootInstant, Error>> {
        Box::pin(ready(Err(unavailable("a courier takes nothing over"))))
    }

    fn applied(&self) -> broadcast::Receiver<Arc<AppliedEntry>> {
        self.applied.subscribe()
    }

    fn reader(&self) -> Result<StateReader, Error> {
        self.store.reader(self.group).map_err(|source| Error::new(source.kind(), "read the state").with_source(source))
    }

    fn put_content(&self, bytes: Payload) -> Later<Result<Content, Error>> {
        Box::pin(ready(Ok(Content::Inline(bytes))))
    }

    fn read_content(&self, content: Content) -> Later<Result<Payload, Error>> {
        Box::pin(ready(match content {
            Content::Inline(bytes) => Ok(bytes),
            Content::Blob { .. } => Err(unavailable("nothing in the simulation is large enough for a blob")),
        }))
    }
}

impl Sites for Port {
    fn ask(&self, _: SiteName, _: SiteTopic, message: Payload) -> Later<Result<Payload, Error>> {
        let (sender, receiver) = oneshot::channel();
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).push((message, sender));
        Box::pin(async { receiver.await.unwrap_or_else(|_| Err(unavailable("ask another site"))) })
    }

    fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
        self.known.subscribe()
    }
}

/// What comes of a piece of the courier's work.
enum Done {
    Exchanged(u64, Result<(Exchanged, Serial), Error>),
    /// Jobs that only the other site has robots for were sent, or not.
    LookedAt {
        term: u64,
        after: Option<QueuePlace>,
        up_to: Option<QueuePlace>,
        is_blocked: bool,
    },
    Answered {
        to: NodeId,
        run: u64,
        call: u64,
        answer: Result<Payload, Error>,
    },
}

/// The courier of one node, to the one other site of the simulation.
pub(crate) struct Courier {
    own: PeerSite,
    peer: PeerSite,
    port: Arc<Port>,
    server: CourierServer,
    tasks: Vec<Later<Done>>,
    proposals: BTreeMap<u64, oneshot::Sender<Result<Outcome, Error>>>,
    questions: BTreeMap<u64, (BootInstant, oneshot::Sender<Result<Payload, Error>>)>,
    numbers: u64,
    pace: Pace,
    told: Serial,
    term: Option<u64>,
    /// What robots the other site has, which this node learns only some time after its start.
    offers: Vec<RobotOffer>,
    look: Look,
}

impl Courier {
    pub(crate) fn start(group: &GroupPart, own: PeerSite, peer: PeerSite, offers: Vec<RobotOffer>) -> Self {
        let known = KnownSite { group: peer.group, is_linked: true, heard_at: None, robots: Vec::new() };
        let port = Arc::new(Port {
            store: group.store.clone(),
            group: group.id,
            proposals: Mutex::default(),
            questions: Mutex::default(),
            standing: watch::Sender::default(),
            known: watch::Sender::new(Arc::new(KnownSites::from([(peer.site.clone(), known)]))),
            applied: broadcast::channel(1).0,
        });
        Self {
            own,
            peer,
            server: CourierServer::new(port.clone(), port.clone()),
            port,
            tasks: Vec::new(),
            proposals: BTreeMap::new(),
            questions: BTreeMap::new(),
            numbers: 0,
            pace: Pace::default(),
            told: Serial::default().next(0),
            term: None,
            offers,
            look: Look::Begins,
        }
    }

    /// Follows the group's standing.
    pub(crate) fn follow(&mut self, group: &GroupPart) {
        if group.serving == self.term {
            return;
        }
        self.term = group.serving;
        let serving = self.term.map(|term| LeaderTerm { epoch: 1, term });
        let leader = serving.map(|_| group.node);
        self.port.standing.send_replace(GroupStanding { leader, serving });
        (self.pace, self.told) = (Pace::default(), Serial::default().next(0));
        self.pace.news();
        self.look = Look::Begins;
    }

    pub(crate) fn applied(&mut self, events: &[Event]) {
        if events.iter().any(|event| matches!(event, Event::OutboxChanged { .. })) {
            self.pace.news();
        }
    }

    pub(crate) fn tick(&mut self, step: &mut Step<'_>, group: &mut GroupPart) {
        self.questions.retain(|_, (asked_at, _)| step.now.saturating_since(*asked_at) < PATIENCE);
        while let Some(term) = self.term
            && let Some(walk) = self.pace.begin(step.now)
        {
            let post = Post { group: self.port.clone(), sites: self.port.clone(), own: self.own.clone() };
            let (peer, told) = (self.peer.clone(), self.told);
            let composed = post.compose(&peer, walk);
            if let Ok(composed) = &composed {
                self.pace.composed(composed.walk, composed.has_more);
            }
            self.tasks.push(Box::pin(async move {
                let exchanged = match composed {
                    Ok(composed) => post.exchange(&peer, told, composed).await,
                    Err(error) => Err(error),
                };
                Done::Exchanged(term, exchanged)
            }));
        }
        self.learn(step);
        self.look(step);
        self.work(step, group);
    }

    /// Hears of the other site's robots, sooner or later.
    fn learn(&mut self, step: &mut Step<'_>) {
        if self.offers.is_empty() || !step.dice.chance(LEARNS_PERCENT) {
            return;
        }
        let robots = std::mem::take(&mut self.offers);
        let known = KnownSite { group: self.peer.group, is_linked: true, heard_at: None, robots };
        self.port.known.send_replace(Arc::new(KnownSites::from([(self.peer.site.clone(), known)])));
        self.look = Look::Begins;
    }

    /// Where a new job goes that no robot here fits.
    pub(crate) fn route(&self, group: &GroupPart, spec: &JobSpec) -> Option<Route> {
        let own = routing::own_robots(&group.reader()).expect("the state can be read");
        routing::route(&routing::needs_anywhere(spec), &own, &self.port.known.borrow())
    }

    /// Sends queued jobs to the other site that only it has robots for.
    fn look(&mut self, step: &mut Step<'_>) {
        let (Some(term), Some(after)) = (self.term, self.look.due(step.now)) else { return };
        let known = Arc::clone(&self.port.known.borrow());
        if known.values().all(|site| site.robots.is_empty()) {
            self.look = Look::done(step.now);
            return;
        }
        let Looked { moving, up_to, has_room } =
            begin_moves(&*self.port, &known, after).expect("the state can be read");
        self.look = Look::UnderWay;
        let proposed: Vec<_> = moving.into_iter().map(|moving| self.port.propose(moving.into())).collect();
        self.tasks.push(Box::pin(async move {
            let mut is_blocked = !has_room;
            for outcome in proposed {
                is_blocked |= outcome.await.is_err();
            }
            Done::LookedAt { term, after, up_to, is_blocked }
        }));
    }

    /// The courier of the other site asks.
    pub(crate) fn asked(
        &mut self,
        step: &mut Step<'_>,
        group: &mut GroupPart,
        (to, run, call): (NodeId, u64, u64),
        message: Payload,
    ) {
        let answer = self.server.answer(self.peer.site.clone(), message);
        self.tasks.push(Box::pin(async move { Done::Answered { to, run, call, answer: answer.await } }));
        self.work(step, group);
    }

    /// The other site answered; `None` if it cannot.
    pub(crate) fn answered(&mut self, step: &mut Step<'_>, group: &mut GroupPart, call: u64, answer: Option<Payload>) {
        if let Some((_, sender)) = self.questions.remove(&call) {
            // The letter may have been given up.
            let _ = sender.send(answer.ok_or_else(|| unavailable("the other site cannot answer now")));
        }
        self.work(step, group);
    }

    /// A proposal of the courier has come to an end.
    pub(crate) fn proposed(
        &mut self,
        step: &mut Step<'_>,
        group: &mut GroupPart,
        token: u64,
        outcome: Option<Outcome>,
    ) {
        if let Some(sender) = self.proposals.remove(&token) {
            let _ = sender.send(outcome.ok_or_else(|| unavailable("the outcome is not known")));
        }
        self.work(step, group);
    }

    /// Lets every piece of work go on as far as it can, and passes on what it asks for.
    fn work(&mut self, step: &mut Step<'_>, group: &mut GroupPart) {
        loop {
            let mut context = Context::from_waker(Waker::noop());
            let mut done = Vec::new();
            self.tasks.retain_mut(|task| match task.as_mut().poll(&mut context) {
                Poll::Ready(ended) => {
                    done.push(ended);
                    false
                }
                Poll::Pending => true,
            });
            let proposals = std::mem::take(&mut *self.port.proposals.lock().unwrap_or_else(PoisonError::into_inner));
            let questions = std::mem::take(&mut *self.port.questions.lock().unwrap_or_else(PoisonError::into_inner));
            if done.is_empty() && proposals.is_empty() && questions.is_empty() {
                return;
            }
            for (id, action, sender) in proposals {
                self.numbers += 1;
                self.proposals.insert(self.numbers, sender);
                match id {
                    Some(id) => group.propose_as(step, id, action, Reply::Courier(self.numbers)),
                    None => group.propose(step, action, Reply::Courier(self.numbers)),
                }
            }
            for (message, sender) in questions {
                self.numbers += 1;
                self.questions.insert(self.numbers, (step.now, sender));
                step.ask_site(Message::Letter { from: group.node, run: group.run, call: self.numbers, message });
            }
            done.into_iter().for_each(|ended| self.ended(step, ended));
        }
    }

    fn ended(&mut self, step: &mut Step<'_>, done: Done) {
        match done {
            Done::Exchanged(term, exchanged) if self.term == Some(term) => {
                let (exchanged, told) = exchanged.unwrap_or((Exchanged::Failed, self.told));
                let jitter = u32::try_from(step.dice.below(1_001)).unwrap_or_default();
                self.pace.ended(step.now, exchanged, jitter);
                self.told = self.told.max(told);
            }
            Done::LookedAt { term, after, up_to, is_blocked } if self.term == Some(term) => {
                if self.look == Look::UnderWay {
                    self.look = match up_to {
                        _ if is_blocked => Look::blocked(step.now, after),
                        Some(place) => Look::goes_on(step.now, place),
                        None => Look::done(step.now),
                    };
                }
            }
            Done::Exchanged(..) | Done::LookedAt { .. } => {}
            Done::Answered { to, run, call, answer } => {
                step.send(to, Message::LetterAnswer { run, call, answer: answer.ok() });
            }
        }
    }
}

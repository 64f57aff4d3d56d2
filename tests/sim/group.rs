//! A node's part of the group: drives the simulator's log with the production rules about elections, leadership, proposals,
//! confirmations and takeovers, and applies what is committed to a real store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fleet_core::{BootInstant, GroupId, NodeId};
use fleet_replication::command::{Action, Command, Outcome};
use fleet_replication::contact::{Acknowledgements, Contact, Reign};
use fleet_replication::watchdog::{self, Outlook, Terms};
use fleet_replication::{LogId, PollAnswer, VoterId, takeover};
use fleet_store::record::CommandId;
use fleet_store::{StateReader, Store};
use openraft::CommittedLeaderId;

use crate::applying::{self, Order};
use crate::bugs::PlantedBug;
use crate::consensus::{Consensus, DiskRecord, Effect, Input, Pace, Payload, Place, Request, Response};
use crate::message::{Alarm, AppliedFact, Ask, Fact, Message, Out, Said, Situation, Step};
use crate::scheduler::Reply;

/// Most commands of one entry; small, so that there are many entries.
const COMMANDS_MAX: usize = 16;
/// How long the proposer waits for an entry, in group leases.
const ENTRY_LEASES_MAX: u32 = 4;

/// What the rest of the node hears of its group.
#[derive(Debug)]
pub(crate) enum Notice {
    /// An entry was applied.
    Applied(Vec<fleet_replication::fsm::Event>),
    /// What came of a proposal; `None` if that is not known, or this node does not lead.
    Proposed(Reply, Option<Outcome>),
    Confirmed(Question, bool),
    /// When an earlier leader was last heard, or that it could not be learnt.
    Takeover {
        term: u64,
        latest: Option<BootInstant>,
    },
}

/// Who waits for a confirmation of the leadership.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Sessions { term: u64, round: u64 },
    Read { number: u64, job: fleet_core::JobId },
}

#[derive(Debug)]
struct Call {
    to: NodeId,
    term: u64,
    sent_at: BootInstant,
    round: Option<u64>,
    is_append: bool,
}

#[derive(Debug)]
struct UnderWay {
    token: u64,
    place: Option<Place>,
    replies: Vec<Reply>,
    since: BootInstant,
}

#[derive(Debug)]
struct Round {
    number: u64,
    since: BootInstant,
    term: u64,
    /// What must be applied, once a quorum has confirmed.
    index: Option<u64>,
    questions: Vec<Question>,
}

#[derive(Debug)]
struct Takeover {
    term: u64,
    since: BootInstant,
    reports: BTreeMap<NodeId, BootInstant>,
    calls: BTreeSet<u64>,
}

#[derive(Debug)]
struct Poll {
    since: BootInstant,
    outlook: Outlook,
    answers: BTreeMap<NodeId, PollAnswer>,
    calls: BTreeSet<u64>,
}

/// A leader's own first entry on its way.
#[derive(Debug)]
struct OwnEntry {
    term: u64,
    token: u64,
    place: Option<Place>,
    since: BootInstant,
}

/// A node's part of the group.
pub(crate) struct GroupPart {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    pub(crate) run: u64,
    pub(crate) consensus: Consensus,
    contact: Contact,
    acknowledgements: Acknowledgements,
    pub(crate) store: Store,
    pub(crate) applied: u64,
    told_committed: u64,
    is_busy: bool,
    held: Vec<Effect>,
    inbox: VecDeque<Input>,
    calls: BTreeMap<u64, Call>,
    numbers: u64,
    own_entry: Option<OwnEntry>,
    led_term: Option<u64>,
    /// The term in which this node serves.
    pub(crate) serving: Option<u64>,
    is_followed: bool,
    tried_at: Option<BootInstant>,
    terms: Terms,
    poll: Option<Poll>,
    waiting: VecDeque<(Command, Reply)>,
    under_way: Option<UnderWay>,
    questions: Vec<Question>,
    round: Option<Round>,
    takeover: Option<Takeover>,
    /// The nodes that gossip holds alive; `None` where it is blind.
    pub(crate) alive: Option<BTreeSet<NodeId>>,
    pub(crate) notices: VecDeque<Notice>,
}

impl GroupPart {
    /// The part of a process that starts with `records` on its disk, of whose commits it remembers those up to
    /// `remembered`.
    pub(crate) fn start(
        step: &mut Step<'_>,
        id: GroupId,
        node: NodeId,
        run: u64,
        records: &[DiskRecord],
        remembered: u64,
    ) -> Self {
        let pace = Pace { heartbeat: step.timing.group_heartbeat, lease: step.timing.group_lease };
        let consensus = Consensus::restart(node, pace, records, remembered);
        let store = Store::in_memory().expect("a store in memory opens");
        let terms = Terms::begin(consensus.vote.term, step.now);
        let mut part = Self {
            id,
            node,
            run,
            consensus,
            contact: Contact::new(step.now),
            acknowledgements: Acknowledgements::default(),
            store,
            applied: 0,
            told_committed: remembered,
            is_busy: false,
            held: Vec::new(),
            inbox: VecDeque::new(),
            calls: BTreeMap::new(),
            numbers: 0,
            own_entry: None,
            led_term: None,
            serving: None,
            is_followed: false,
            tried_at: None,
            terms,
            poll: None,
            waiting: VecDeque::new(),
            under_way: None,
            questions: Vec::new(),
            round: None,
            takeover: None,
            alive: None,
            notices: VecDeque::new(),
        };
        part.apply(step);
        part.notices.clear();
        if part.consensus.leads() {
            step.fact(Fact::Seen(Situation::LeaderResumed));
        }
        part
    }

    pub(crate) fn reader(&self) -> StateReader {
        self.store.reader(self.id).expect("a store in memory can be read")
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn reign(&self) -> Reign {
        Reign { term: self.consensus.vote.term, run: self.run, node: self.node }
    }

    /// Whom this node takes for the leader.
    pub(crate) fn leader(&self, step: &Step<'_>) -> Option<NodeId> {
        if self.consensus.leads() {
            return self.is_followed.then_some(self.node);
        }
        let (leader, at) = self.contact.last_heard()?;
        (step.now.saturating_since(at) <= step.timing.group_lease * 2 && leader != self.node).then_some(leader)
    }

    /// Proposes `action` under a fresh command id.
    pub(crate) fn propose(&mut self, step: &mut Step<'_>, action: Action, reply: Reply) {
        let id = CommandId(u128::from(step.dice.bits()) << 64 | u128::from(step.dice.bits()));
        self.propose_as(step, id, action, reply);
    }

    /// Proposes `action` under the command id `id`.
    pub(crate) fn propose_as(&mut self, step: &mut Step<'_>, id: CommandId, action: Action, reply: Reply) {
        self.waiting.push_back((Command { id, at: step.wall, action }, reply));
        self.write_entry(step);
    }

    /// Has a quorum asked whether it follows, on behalf of `question`.
    pub(crate) fn confirm(&mut self, step: &mut Step<'_>, question: Question) {
        self.questions.push(question);
        self.begin_round(step);
    }

    /// Makes nodes members.
    pub(crate) fn change_members(&mut self, step: &mut Step<'_>, members: crate::consensus::Members) {
        let token = self.number();
        self.take(step, Input::Propose { token, payload: Payload::Members(members) });
    }

    // ---- the consensus, which does one thing after the other

    fn take(&mut self, step: &mut Step<'_>, input: Input) {
        self.inbox.push_back(input);
        self.work(step);
    }

    fn work(&mut self, step: &mut Step<'_>) {
        while !self.is_busy {
            let Some(input) = self.inbox.pop_front() else { return };
            let effects = self.consensus.handle(step.now, input);
            self.write(step, effects);
        }
    }

    /// Writes what the consensus wants written; `effects` count once that is synced.
    fn write(&mut self, step: &mut Step<'_>, effects: Vec<Effect>) {
        let writes = std::mem::take(&mut self.consensus.writes);
        if writes.is_empty() {
            self.release(step, effects);
            if self.is_busy {
                return;
            }
            let more = self.consensus.synced(step.now);
            if !self.consensus.writes.is_empty() {
                return self.write(step, more);
            }
            self.release(step, more);
            return self.apply(step);
        }
        for record in writes {
            if matches!(record, DiskRecord::Truncate(_)) {
                step.fact(Fact::Seen(Situation::LogTruncated));
            }
            if step.disk.write(record).is_err() {
                step.fact(Fact::Seen(Situation::DiskFull));
                return step.out.push(Out::Fail("the disk is full"));
            }
        }
        let delay_us = 300 + step.dice.below(3_000) as u64 + step.disk_stall_us;
        step.out.push(Out::Wake { delay_us, alarm: Alarm::Synced });
        if step.has(PlantedBug::AckBeforeFsync) {
            self.write(step, effects);
        } else {
            self.is_busy = true;
            self.held = effects;
        }
    }

    /// What was written is on the disk.
    pub(crate) fn synced(&mut self, step: &mut Step<'_>) {
        step.disk.sync();
        if self.is_busy {
            self.is_busy = false;
            let held = std::mem::take(&mut self.held);
            self.write(step, held);
        }
        self.work(step);
    }

    fn release(&mut self, step: &mut Step<'_>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, request, round } => self.call_log(step, to, request, round),
                Effect::Answer { to, call, run, term, hears, response } => {
                    let reign = Reign { term, run, node: to };
                    let said = if hears && self.contact.forbids(reign).is_some() {
                        Said::Refused
                    } else {
                        if hears {
                            self.contact.heard(reign, step.now);
                        }
                        Said::Log(response)
                    };
                    step.send(to, Message::Said { from: self.node, run, call, said });
                }
                Effect::Proposed { token, place } => self.proposed(token, place),
                Effect::NotLeader { token } => self.not_proposed(token),
                Effect::Confirmed { round, index } => {
                    if let Some(current) = self.round.as_mut().filter(|current| current.number == round) {
                        current.index = Some(index);
                    }
                }
                Effect::Leads => {
                    self.led_term = None;
                    step.fact(Fact::Seen(Situation::LeaderElected));
                }
            }
        }
        self.end_round(step);
    }

    fn call_log(&mut self, step: &mut Step<'_>, to: NodeId, request: Request, round: Option<u64>) {
        let is_append = matches!(request, Request::Append { .. });
        let call = self.call(step, to, Ask::Log(request), round, is_append);
        if is_append && round.is_none() {
            self.consensus.called(to, call, step.now);
        }
    }

    fn call(&mut self, step: &mut Step<'_>, to: NodeId, ask: Ask, round: Option<u64>, is_append: bool) -> u64 {
        let call = self.number();
        let term = self.consensus.vote.term;
        self.calls.insert(call, Call { to, term, sent_at: step.now, round, is_append });
        step.send(to, Message::Ask { from: self.node, run: self.run, call, ask });
        call
    }

    // ---- the other nodes

    /// Another node asks.
    pub(crate) fn asked(&mut self, step: &mut Step<'_>, from: NodeId, run: u64, call: u64, ask: Ask) {
        let said = match ask {
            Ask::Log(request) => {
                if let Request::Append { term, .. } = &request {
                    let reign = Reign { term: *term, run, node: from };
                    if self.contact.forbids(reign).is_some() {
                        return step.send(from, Message::Said { from: self.node, run, call, said: Said::Refused });
                    }
                }
                return self.take(step, Input::Request { from, call, run, request });
            }
            Ask::Poll => Said::Poll(self.poll_answer(step)),
            Ask::Takeover { term } => self.take_over(step, Reign { term, run, node: from }),
        };
        step.send(from, Message::Said { from: self.node, run, call, said });
    }

    fn poll_answer(&self, step: &Step<'_>) -> PollAnswer {
        let heard = self.contact.last_heard().map(|(_, at)| at);
        let since = heard.map_or(self.contact.started_at(), |at| at.max(self.contact.started_at()));
        let silence_ms = u64::try_from(step.now.saturating_since(since).as_millis()).unwrap_or(u64::MAX);
        PollAnswer { silence_ms, last_log: log_id(self.consensus.last()), leads: self.is_followed }
    }

    fn take_over(&mut self, step: &Step<'_>, reign: Reign) -> Said {
        if self.is_busy || self.consensus.vote.term < reign.term {
            return Said::Refused;
        }
        if self.serving.is_some_and(|term| term < reign.term) {
            self.contact.stopped_leading(step.now);
        }
        match self.contact.take_over(reign) {
            Some(at) => {
                let ago = step.now.saturating_since(at);
                Said::Takeover { ago_us: u64::try_from(ago.as_micros()).unwrap_or(u64::MAX) }
            }
            None => Said::Refused,
        }
    }

    /// Another node answers.
    pub(crate) fn answered(&mut self, step: &mut Step<'_>, from: NodeId, call: u64, said: Said) {
        let Some(known) = self.calls.remove(&call).filter(|known| known.to == from) else { return };
        match said {
            Said::Log(response) => {
                let follows = matches!(response, Response::Appended(_) | Response::Conflict(_));
                if known.is_append && follows {
                    self.acknowledgements.note(from, known.term, known.sent_at);
                }
                if let (Some(round), true) = (known.round, follows) {
                    let effects = self.consensus.followed(round, from);
                    return self.release(step, effects);
                }
                let is_late = known.term != self.consensus.vote.term && !matches!(response, Response::Higher(_));
                if !is_late {
                    self.take(step, Input::Response { from, call, response });
                }
            }
            Said::Poll(answer) => {
                if let Some(poll) = self.poll.as_mut().filter(|poll| poll.calls.contains(&call)) {
                    poll.answers.insert(from, answer);
                    self.judge_poll(step);
                }
            }
            Said::Takeover { ago_us } => {
                if let Some(takeover) = self.takeover.as_mut().filter(|takeover| takeover.calls.contains(&call)) {
                    let at = step.now.0.saturating_sub(std::time::Duration::from_micros(ago_us));
                    takeover.reports.insert(from, BootInstant(at));
                    self.judge_takeover();
                }
            }
            Said::Refused => {}
        }
    }

    // ---- elections

    fn outlook(&self, step: &Step<'_>) -> Outlook {
        Outlook {
            group: self.id,
            node: self.node,
            term: self.consensus.vote.term,
            leads: self.consensus.leads(),
            voters: self.consensus.members.voters.clone(),
            alive: self.alive.clone(),
            heard: self.contact.last_heard(),
            started_at: self.contact.started_at(),
            tried_at: self.tried_at,
            term_since: self.terms.since,
            term_of_leader: self.contact.last_term().unwrap_or(self.terms.first),
            now: step.now,
        }
    }

    fn watch(&mut self, step: &mut Step<'_>) {
        let voters = self.consensus.members.all().len();
        let deadline = step.timing.rank_step(voters);
        if self.poll.as_ref().is_some_and(|poll| step.now.saturating_since(poll.since) >= deadline) {
            self.poll = None;
        }
        self.terms.see(self.consensus.vote.term, step.now);
        let outlook = self.outlook(step);
        if self.poll.is_some() || !watchdog::should_poll(&outlook, &step.timing) {
            return;
        }
        let others: BTreeSet<NodeId> =
            outlook.voters.iter().flatten().copied().filter(|voter| *voter != self.node).collect();
        let calls = others.into_iter().map(|voter| self.call(step, voter, Ask::Poll, None, false)).collect();
        self.poll = Some(Poll { since: step.now, outlook, answers: BTreeMap::new(), calls });
        self.judge_poll(step);
    }

    fn judge_poll(&mut self, step: &mut Step<'_>) {
        let Some(poll) = &self.poll else { return };
        let own = log_id(self.consensus.last());
        if !watchdog::should_elect(&poll.outlook, own, &poll.answers, step.timing.group_lease) {
            return;
        }
        self.poll = None;
        if watchdog::should_poll(&self.outlook(step), &step.timing) {
            self.tried_at = Some(step.now);
            self.take(step, Input::Elect);
        }
    }

    // ---- leadership

    /// Time passed.
    pub(crate) fn tick(&mut self, step: &mut Step<'_>, is_watching: bool) {
        let lease = step.timing.group_lease;
        self.calls.retain(|_, call| step.now.saturating_since(call.sent_at) < lease * 4);
        self.take(step, Input::Tick);
        self.refresh(step);
        if is_watching {
            self.watch(step);
        }
        if self.round.as_ref().is_some_and(|round| step.now.saturating_since(round.since) >= lease) {
            let round = self.round.take();
            self.fail_round(round);
        }
        self.begin_round(step);
        if self.takeover.as_ref().is_some_and(|takeover| step.now.saturating_since(takeover.since) >= lease / 2) {
            let term = self.takeover.take().map_or(0, |takeover| takeover.term);
            self.notices.push_back(Notice::Takeover { term, latest: None });
        }
        let is_over = |since: BootInstant| step.now.saturating_since(since) >= lease * ENTRY_LEASES_MAX;
        if self.under_way.as_ref().is_some_and(|entry| is_over(entry.since)) {
            let replies = self.under_way.take().map(|entry| entry.replies).unwrap_or_default();
            self.notices.extend(replies.into_iter().map(|reply| Notice::Proposed(reply, None)));
        }
        self.write_entry(step);
    }

    /// Brings the standing up to date.
    pub(crate) fn refresh(&mut self, step: &mut Step<'_>) {
        let (term, leads) = (self.consensus.vote.term, self.consensus.leads());
        if !leads {
            (self.led_term, self.own_entry) = (None, None);
        } else if self.led_term != Some(term) {
            let lease = step.timing.group_lease;
            let is_open = self
                .own_entry
                .as_ref()
                .is_some_and(|own| own.term == term && step.now.saturating_since(own.since) < lease * 2);
            if step.has(PlantedBug::ServeBeforeOwnEntry) {
                self.led_term = Some(term);
            } else if !is_open {
                self.propose_own(step, term);
            }
        }
        let voters = &self.consensus.members.voters;
        let followed_at = leads.then(|| self.acknowledgements.quorum_at(voters, self.node, term, step.now)).flatten();
        self.is_followed = followed_at.is_some_and(|at| step.now.saturating_since(at) <= step.timing.group_lease);
        let is_pledged_away = self.contact.forbids(self.reign()).is_some();
        let serves = leads && self.is_followed && self.led_term == Some(term) && !is_pledged_away;
        let serving = serves.then_some(term);
        if self.serving.is_some() && serving.is_none() {
            self.contact.stopped_leading(step.now);
        }
        if serving.is_some() && serving != self.serving {
            step.fact(Fact::Serves { node: self.node, term, applied: self.applied });
        }
        self.serving = serving;
    }

    fn propose_own(&mut self, step: &mut Step<'_>, term: u64) {
        let token = self.number();
        let id = CommandId(u128::from(step.dice.bits()));
        let command = Command { id, at: step.wall, action: Action::Lead { node: self.node } };
        self.own_entry = Some(OwnEntry { term, token, place: None, since: step.now });
        self.take(step, Input::Propose { token, payload: Payload::Commands(Arc::new(vec![command])) });
    }

    // ---- proposals

    fn write_entry(&mut self, step: &mut Step<'_>) {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return;
        }
        let count = self.waiting.len().min(COMMANDS_MAX);
        let (commands, replies): (Vec<Command>, Vec<Reply>) = self.waiting.drain(..count).unzip();
        if self.serving.is_none() {
            self.notices.extend(replies.into_iter().map(|reply| Notice::Proposed(reply, None)));
            return;
        }
        let token = self.number();
        self.under_way = Some(UnderWay { token, place: None, replies, since: step.now });
        self.take(step, Input::Propose { token, payload: Payload::Commands(Arc::new(commands)) });
    }

    fn proposed(&mut self, token: u64, place: Place) {
        if let Some(own) = self.own_entry.as_mut().filter(|own| own.token == token) {
            own.place = Some(place);
        }
        if let Some(entry) = self.under_way.as_mut().filter(|entry| entry.token == token) {
            entry.place = Some(place);
        }
    }

    fn not_proposed(&mut self, token: u64) {
        if let Some(entry) = self.under_way.take_if(|entry| entry.token == token) {
            self.notices.extend(entry.replies.into_iter().map(|reply| Notice::Proposed(reply, None)));
        }
    }

    // ---- confirmations

    fn begin_round(&mut self, step: &mut Step<'_>) {
        if self.round.is_some() || self.questions.is_empty() {
            return;
        }
        let number = self.number();
        let questions = std::mem::take(&mut self.questions);
        let term = self.serving.filter(|_| self.contact.forbids(self.reign()).is_none());
        let mut round = Round { number, since: step.now, term: term.unwrap_or_default(), index: None, questions };
        if term.is_none() {
            return self.fail_round(Some(round));
        }
        if step.has(PlantedBug::RenewWithoutQuorum) {
            round.index = Some(self.applied);
            self.round = Some(round);
            return self.end_round(step);
        }
        self.round = Some(round);
        self.take(step, Input::Confirm { round: number });
    }

    fn fail_round(&mut self, round: Option<Round>) {
        let questions = round.map(|round| round.questions).unwrap_or_default();
        self.notices.extend(questions.into_iter().map(|question| Notice::Confirmed(question, false)));
    }

    fn end_round(&mut self, step: &mut Step<'_>) {
        let applied = self.applied;
        let Some(round) = self.round.take_if(|round| round.index.is_some_and(|index| index <= applied)) else { return };
        let still = self.serving.filter(|_| self.contact.forbids(self.reign()).is_none());
        if still != Some(round.term) {
            return self.fail_round(Some(round));
        }
        let questions = round.questions.into_iter();
        self.notices.extend(questions.map(|question| Notice::Confirmed(question, true)));
        self.begin_round(step);
    }

    // ---- taking over

    /// Asks when an earlier leader was last heard.
    pub(crate) fn ask_takeover(&mut self, step: &mut Step<'_>) {
        let term = self.consensus.vote.term;
        if self.takeover.as_ref().is_some_and(|takeover| takeover.term == term) {
            return;
        }
        let Some(own) = self.contact.take_over(self.reign()) else {
            return self.notices.push_back(Notice::Takeover { term, latest: None });
        };
        let voters = &self.consensus.members.voters;
        let others: BTreeSet<NodeId> = voters.iter().flatten().copied().filter(|voter| *voter != self.node).collect();
        let ask = Ask::Takeover { term };
        let calls = others.into_iter().map(|voter| self.call(step, voter, ask.clone(), None, false)).collect();
        let reports = BTreeMap::from([(self.node, own)]);
        self.takeover = Some(Takeover { term, since: step.now, reports, calls });
        self.judge_takeover();
    }

    fn judge_takeover(&mut self) {
        let Some(asked) = &self.takeover else { return };
        if let Some(latest) = takeover::latest(&self.consensus.members.voters, &asked.reports) {
            self.notices.push_back(Notice::Takeover { term: asked.term, latest: Some(latest) });
            self.takeover = None;
        }
    }

    // ---- the state

    /// Applies what is committed.
    fn apply(&mut self, step: &mut Step<'_>) {
        let committed = self.consensus.committed;
        if committed > self.told_committed {
            self.told_committed = committed;
            step.fact(Fact::Committed { index: committed });
        }
        if self.applied >= committed {
            return;
        }
        let from = usize::try_from(self.applied).unwrap_or_default();
        let to = usize::try_from(committed).unwrap_or_default();
        let entries = self.consensus.log[from..to].to_vec();
        let order = Order {
            wall: step.has(PlantedBug::ApplyWithWallClock).then_some(step.wall),
            takes_any_fence: step.has(PlantedBug::StaleFenceAccepted),
        };
        self.applied = committed;
        for applied in applying::apply(&self.store, self.id, self.node, entries, order) {
            self.entry_applied(step, applied);
        }
        self.end_round(step);
        self.refresh(step);
        self.write_entry(step);
    }

    fn entry_applied(&mut self, step: &mut Step<'_>, fact: AppliedFact) {
        if let Some(own) = self.own_entry.take_if(|own| own.place == Some(fact.place)) {
            self.led_term = Some(own.term);
        }
        let events = fact.events.clone();
        let (place, outcomes) = (fact.place, fact.outcomes.clone());
        step.fact(Fact::Applied(Arc::new(fact)));
        if !events.is_empty() {
            self.notices.push_back(Notice::Applied(events));
        }
        if let Some(entry) = self.under_way.take_if(|entry| entry.place.is_some_and(|own| own.1 <= place.1)) {
            let is_ours = entry.place == Some(place);
            for (number, reply) in entry.replies.into_iter().enumerate() {
                let outcome = outcomes.get(number).filter(|_| is_ours).cloned();
                self.notices.push_back(Notice::Proposed(reply, outcome));
            }
        }
    }
}

fn log_id(place: Place) -> Option<LogId> {
    (place.1 > 0).then(|| LogId::new(CommittedLeaderId::new(place.0, VoterId::default()), place.1))
}

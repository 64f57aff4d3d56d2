//! A node's part of the group: drives the simulator's log with the production rules about elections, leadership, proposals,
//! confirmations and takeovers, and applies what is committed to a real store.

mod elections;
mod entries;
mod leadership;
mod peers;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fleet_core::{BootInstant, GroupId, NodeId};
use fleet_replication::command::{Action, Command, Outcome};
use fleet_replication::contact::{Acknowledgements, Contact, Reign};
use fleet_replication::watchdog::{Outlook, Terms};
use fleet_replication::{LogId, PollAnswer, VoterId};
use fleet_store::record::CommandId;
use fleet_store::{StateReader, Store};
use openraft::CommittedLeaderId;

use crate::bugs::PlantedBug;
use crate::consensus::{Consensus, DiskRecord, Effect, Input, Pace, Payload, Place};
use crate::message::{Alarm, Fact, Message, Out, Said, Situation, Step};
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
        if part.consensus.base.state.place.1 > 0 {
            let state = std::sync::Arc::clone(&part.consensus.base.state);
            part.install(&state);
        }
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
                // Nothing that follows from what is not written may be heard of any more.
                self.is_busy = true;
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
                Effect::SendSnapshot { to, term } => self.send_snapshot(step, to, term),
                Effect::Install(snapshot) => self.take_snapshot(step, &snapshot),
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
}

fn log_id(place: Place) -> Option<LogId> {
    (place.1 > 0).then(|| LogId::new(CommittedLeaderId::new(place.0, VoterId::default()), place.1))
}

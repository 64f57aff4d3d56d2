//! Applies committed entries to a real store through the production state machine, and tells what they did.

use fleet_core::{Digest, GroupId, NodeId, Timestamp};
use fleet_replication::command::{Action, Command, Moving};
use fleet_replication::fsm::{self, EntryPosition, Event};
use fleet_store::record::{Job, Verdict};
use fleet_store::state::tables::{ARRIVALS, JOBS};
use fleet_store::state::{jobs, moves};
use fleet_store::{Error, StateTransaction, Store};

use crate::consensus::{Entry, Payload, Place};
use crate::message::AppliedFact;

/// How entries are applied: as they should be, unless a bug is planted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// The time to use instead of the commands'.
    pub(crate) wall: Option<Timestamp>,
    /// Whether records count whatever fence they carry.
    pub(crate) takes_any_fence: bool,
    /// Whether decided moves are forgotten at once.
    pub(crate) forgets_moves: bool,
    /// Whether a recall is decided by its own side.
    pub(crate) recalls_itself: bool,
    /// Whether a job whose move is given up keeps its generation.
    pub(crate) keeps_generation: bool,
}

/// Applies `entries` in one transaction.
pub(crate) fn apply(
    store: &Store,
    group: GroupId,
    node: NodeId,
    entries: Vec<Entry>,
    order: Order,
) -> Vec<AppliedFact> {
    let work = store.apply(group, move |state| {
        let last = entries.last().map(|entry| entry.place);
        let facts = entries.into_iter().map(|entry| apply_one(state, node, entry, order));
        let facts = facts.collect::<Result<Vec<_>, Error>>()?;
        last.map_or(Ok(()), |last| state.put_applied(&applied_to(last)))?;
        Ok(facts)
    });
    work.wait().expect("a store in memory takes what is applied")
}

/// What the state's own row says of how far it is applied.
pub(crate) fn applied_to((term, index): Place) -> Vec<u8> {
    [term.to_be_bytes(), index.to_be_bytes()].concat()
}

fn apply_one(state: &mut StateTransaction<'_>, node: NodeId, entry: Entry, order: Order) -> Result<AppliedFact, Error> {
    let (term, index) = entry.place;
    let mut fact = AppliedFact {
        node,
        place: entry.place,
        actions: Vec::new(),
        outcomes: Vec::new(),
        events: Vec::new(),
        content: Digest::of(format!("{:?}", entry.payload).as_bytes()).to_string(),
        fingerprint: String::new(),
    };
    if let Payload::Commands(commands) = &entry.payload {
        let mut commands: Vec<Command> = commands.as_ref().clone();
        fact.actions = commands.iter().map(|command| command.action.clone()).collect();
        for command in &mut commands {
            if let Some(wall) = order.wall {
                command.at = wall;
            }
            if let (true, Action::Moving(Moving::Recall { job, .. })) = (order.recalls_itself, &command.action)
                && let Some(moved) = moves::of_job(state, *job)?
            {
                let (target, number) = (moved.to.group, moved.number);
                command.action = Moving::Settle { target, number, verdict: Verdict::Recalled }.into();
            }
            if let (true, Action::Record(records)) = (order.takes_any_fence, &mut command.action) {
                let holder = jobs::job(state, records.job)?.and_then(|job| job.assignment);
                records.fence = holder.map_or(records.fence, |holder| holder.fence);
            }
        }
        for applied in fsm::apply(state, EntryPosition { epoch: 1, term, index }, &commands)? {
            fact.outcomes.push(applied.outcome);
            fact.events.extend(applied.events);
        }
        for action in fact.actions.iter().filter(|_| order.forgets_moves) {
            if let Action::Moving(Moving::Accept(arriving)) = action {
                state.remove(&ARRIVALS, &(arriving.source.group, arriving.number))?;
            }
        }
    }
    for action in fact.actions.iter().filter(|_| order.keeps_generation) {
        if let Action::Moving(Moving::Abandon { job, generation }) = action
            && let Some(row) = jobs::job(state, *job)?
        {
            state.put(&JOBS, job, &Job { generation: *generation, ..row })?;
        }
    }
    let mut text = format!("{:?}{:?}", fact.outcomes, fact.events);
    for event in &fact.events {
        if let Event::JobChanged { job, .. } | Event::JournalAppended { job, .. } = event {
            text += &format!("{:?}", jobs::job(state, *job)?);
        }
    }
    fact.fingerprint = Digest::of(text.as_bytes()).to_string();
    Ok(fact)
}

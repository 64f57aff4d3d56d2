//! The state machine of a site's group: commands in, rows and events out, the same on every node.
//!
//! Pure: no clock, no randomness, no hash-map order; time and random values come with the command. Every precondition is
//! checked here and nowhere else counts. A refused command changes nothing. How commands are split into entries changes
//! nothing but the fences, which are minted from the entry's place in the log.
//!
//! Not here: what is worth proposing (scheduler, robot link), and how entries are agreed on (the group).

mod absence;
mod arrivals;
mod assign;
mod control;
mod event;
mod expulsion;
mod forget;
mod holder;
mod mirrors;
mod moves;
mod node;
mod registry;
mod release;
mod reports;
mod scope;
mod site;
mod submit;
mod timer;
mod token;
mod transition;
mod trust;

pub use event::Event;

use fleet_core::Fence;
use fleet_store::state::jobs::site as read_site;
use fleet_store::state::tables::SITE;
use fleet_store::{Error, StateTransaction};

use crate::command::{Action, Command, Moving, Outcome, Refusal};
use scope::{Halt, Scope};

/// Where a log entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPosition {
    /// Epoch of the group.
    pub epoch: u64,
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
}

/// What came of one command, and what changed by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What came of it.
    pub outcome: Outcome,
    /// What changed, in order; empty if nothing did.
    pub events: Vec<Event>,
}

/// Applies the commands of the entry at `entry`, in order. An error is the store's: the transaction must not be committed.
pub fn apply(
    transaction: &mut StateTransaction<'_>,
    entry: EntryPosition,
    commands: &[Command],
) -> Result<Vec<Applied>, Error> {
    let before = read_site(transaction)?;
    let mut scope = Scope::new(transaction, entry, before.clone());
    let mut applied = Vec::with_capacity(commands.len());
    for (position, command) in (0_u32..).zip(commands) {
        scope.begin(command, Fence::mint(entry.epoch, entry.index, position));
        let outcome = match apply_one(&mut scope, &command.action) {
            Ok(outcome) => outcome,
            Err(Halt::Refused(refusal)) => Outcome::Refused(refusal),
            Err(Halt::Store(error)) => return Err(error),
        };
        applied.push(Applied { outcome, events: scope.take_events() });
    }
    if scope.site != before {
        scope.transaction.put(&SITE, &(), &scope.site)?;
    }
    Ok(applied)
}

fn apply_one(scope: &mut Scope<'_, '_>, action: &Action) -> Result<Outcome, Halt> {
    if scope.site.founding.is_none() && !matches!(action, Action::Found(_) | Action::Lead { .. }) {
        return Err(Refusal::NotFounded.into());
    }
    match action {
        Action::Found(founding) => site::found(scope, founding),
        Action::Lead { node } => Ok(site::lead(scope, *node)),
        Action::Submit(submission) => submit::submit(scope, submission),
        Action::Assign { job, attempt, session } => assign::assign(scope, *job, *attempt, *session),
        Action::Record(records) => holder::record(scope, records),
        Action::Stop { job, cause } => control::stop(scope, *job, *cause),
        Action::Release { job, fence, cause } => release::release(scope, *job, *fence, *cause),
        Action::Resume { job } => control::resume(scope, *job),
        Action::Deliver { job, event } => control::deliver(scope, *job, event),
        Action::FireTimers => timer::fire(scope),
        Action::PutNode(admission) => node::put(scope, admission),
        Action::DrainNode { node, deadline } => node::drain(scope, *node, *deadline),
        Action::UndrainNode { node } => node::undrain(scope, *node),
        Action::RemoveNode { node } => node::remove(scope, *node),
        Action::CreateToken(grant) => token::create(scope, grant),
        Action::RedeemToken(redeeming) => token::redeem(scope, redeeming),
        Action::Admit { redeeming, sealing_key } => token::admit(scope, redeeming, sealing_key),
        Action::RevokeToken { token } => token::revoke(scope, *token),
        Action::PutTrust { rows } => trust::put(scope, rows),
        Action::PutKeyring(keyring) => trust::put_keyring(scope, keyring),
        Action::Gate { version } => Ok(site::raise_gate(scope, *version)),
        Action::Hold { awaited } => Ok(site::hold(scope, awaited)),
        Action::Reconciled { node } => Ok(site::reconciled(scope, *node)),
        Action::EndHold => Ok(site::end_hold(scope)),
        Action::NoteAbsence { job, fence, absence } => absence::note(scope, *job, *fence, *absence),
        Action::Rebind { job, fence, session } => absence::rebind(scope, *job, *fence, *session),
        Action::ReleaseAbsent { job, fence, number } => absence::release(scope, *job, *fence, *number),
        Action::Forget { before } => forget::forget(scope, *before),
        Action::SubmitAssigned { submission, session } => submit::submit_assigned(scope, submission, *session),
        Action::GrantFounding(grant) => registry::grant(scope, grant),
        Action::FoundSite(founding) => registry::found(scope, founding),
        Action::NoteSites { notes } => registry::note(scope, notes),
        Action::Moving(moving) => apply_moving(scope, moving),
        Action::RenewAuthority { replaces, certificate } => trust::renew_authority(scope, *replaces, certificate),
        Action::RenewSite(renewal) => registry::renew(scope, renewal),
        Action::RemoveSite(removal) => registry::remove(scope, removal),
        Action::ExpelSite(site) => expulsion::expel(scope, site),
    }
}

/// The commands about jobs that move between sites.
fn apply_moving(scope: &mut Scope<'_, '_>, moving: &Moving) -> Result<Outcome, Halt> {
    match moving {
        Moving::SubmitTo { submission, to, because } => moves::submit_to(scope, submission, to, because),
        Moving::Begin { job, generation, to, because } => moves::begin(scope, *job, *generation, to, because),
        Moving::Settle { target, number, verdict } => moves::settle(scope, *target, *number, verdict),
        Moving::Recall { job, generation } => moves::recall(scope, *job, *generation),
        Moving::Abandon { job, generation } => moves::abandon(scope, *job, *generation),
        Moving::Report(report) => mirrors::hear(scope, report),
        Moving::Accept(arriving) => arrivals::accept(scope, arriving),
        Moving::Decide { source, number, verdict } => arrivals::decide(scope, source, *number, verdict),
        Moving::Pass { source, watermark } => arrivals::pass(scope, source, *watermark),
        Moving::StopArrived { source, number, job } => arrivals::stop(scope, *source, *number, *job),
        Moving::Obeyed { target, numbers } => moves::obeyed(scope, *target, numbers),
        Moving::Acknowledge { source, reports } => reports::acknowledge(scope, *source, reports),
    }
}

//! What must hold once all is well again.

use fleet_core::invariant::Invariant;
use fleet_store::StateRead;
use fleet_store::record::{Content, Ending, JobState};
use fleet_store::state::jobs;

use crate::judge::{Law, Violation, broken};
use crate::world::World;

/// Checks every job and every node's state.
pub(crate) fn check(world: &World) -> Result<(), Violation> {
    for job in &world.clients.accepted {
        if !world.judge.jobs.contains_key(job) {
            let detail = format!("job {job} was accepted and is gone");
            return broken(Law::Promise(Invariant::DurableAccept), detail);
        }
    }
    let processes: Vec<_> = world.machines.iter().filter_map(|machine| machine.process.as_ref()).collect();
    let mut dumps = processes.iter().map(|process| (process.group.node, dump(&process.group.reader())));
    let Some((first, expected)) = dumps.next() else {
        return broken(Law::Promise(Invariant::HealingIsAutomatic), "no node runs".to_owned());
    };
    if let Some((node, _)) = dumps.find(|(_, rows)| *rows != expected) {
        return broken(Law::SameLogSameState, format!("{first} and {node} hold other rows after the same log"));
    }
    let Some(process) = processes.first() else { return Ok(()) };
    let reader = process.group.reader();
    for (job, wanted) in &world.clients.wanted {
        let Some(row) = jobs::job(&reader, *job).expect("the state can be read") else { continue };
        let ending = jobs::ending(&reader, *job).expect("the state can be read");
        let is_right = match row.state {
            JobState::Completed => match (&ending, world.expected(wanted.workflow)) {
                (Some(Ending::Output(Content::Inline(bytes))), Some(expected)) => {
                    serde_json::from_slice::<serde_json::Value>(bytes.as_slice())
                        .is_ok_and(|output| output == *expected)
                }
                (Some(Ending::Output(_)), None) => true,
                _ => false,
            },
            JobState::Cancelled => world.judge.jobs.get(job).is_some_and(|facts| facts.was_cancelled),
            JobState::DeadLettered => row.lost > 5,
            _ => false,
        };
        if !is_right {
            let detail =
                format!("job {job} of workflow {} ends {} with {ending:?}: {row:?}", wanted.workflow, row.state);
            return broken(Law::Promise(Invariant::EveryJobEndsOrSaysWhyNot), detail);
        }
    }
    Ok(())
}

fn dump(reader: &impl StateRead) -> Vec<fleet_store::RawRow> {
    let group = reader.group();
    let mut end = group.as_bytes().to_vec();
    end.push(0xff);
    let from = std::ops::Bound::Included(group.as_bytes().as_slice());
    reader.raw_range(from, &end, usize::MAX, false).expect("the state can be read")
}

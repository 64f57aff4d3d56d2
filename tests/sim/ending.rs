//! What must hold once all is well again.

use fleet_core::JobId;
use fleet_core::invariant::Invariant;
use fleet_store::StateRead;
use fleet_store::record::{Content, Ending, Job, JobState};
use fleet_store::state::jobs;

use crate::judge::{Law, Violation, broken};
use crate::node::Process;
use crate::world::{Site, World};

/// Checks every job and every node's state.
pub(crate) fn check(world: &World) -> Result<(), Violation> {
    world.sites.iter().try_for_each(|site| check_copies(world, site))?;
    for job in &world.clients.accepted {
        let site = world.clients.wanted.get(job).map_or(0, |wanted| wanted.site);
        if !world.sites[site].judge.jobs.contains_key(job) {
            let detail = format!("job {job} was accepted and is gone");
            return broken(Law::Promise(Invariant::DurableAccept), detail);
        }
    }
    check_jobs(world)
}

fn processes<'a>(world: &'a World, site: &Site) -> impl Iterator<Item = &'a Process> {
    site.machines.clone().filter_map(|machine| world.machines[machine].process.as_ref())
}

/// All nodes of a site hold the same rows.
fn check_copies(world: &World, site: &Site) -> Result<(), Violation> {
    let mut dumps = processes(world, site).map(|process| (process.group.node, dump(&process.group.reader())));
    let Some((first, expected)) = dumps.next() else {
        return broken(Law::Promise(Invariant::HealingIsAutomatic), "no node runs".to_owned());
    };
    match dumps.find(|(_, rows)| *rows != expected) {
        Some((node, _)) => {
            broken(Law::SameLogSameState, format!("{first} and {node} hold other rows after the same log"))
        }
        None => Ok(()),
    }
}

/// Every job came to what it must come to, and its first site knows.
fn check_jobs(world: &World) -> Result<(), Violation> {
    for (job, wanted) in &world.clients.wanted {
        let at = |site: usize| processes(world, &world.sites[site]).next();
        let rows = (0..world.sites.len()).filter_map(|site| {
            let row = jobs::job(&at(site)?.group.reader(), *job).expect("the state can be read");
            row.map(|row| (site, row))
        });
        let rows: Vec<_> = rows.collect();
        let rows = counting(world, *job, wanted.site, rows)?;
        let [(lives_at, row)] = rows.as_slice() else {
            if rows.is_empty() && !world.clients.accepted.contains(job) {
                continue;
            }
            let detail = format!("job {job} is at {} sites", rows.len());
            return broken(Law::Promise(Invariant::AtMostOneActor), detail);
        };
        let home = world.sites[wanted.site].machines.start;
        let told = if *lives_at == wanted.site { Some(row.state) } else { world.mirrored(home, *job) };
        let ending = at(wanted.site)
            .and_then(|process| jobs::ending(&process.group.reader(), *job).expect("the state can be read"));
        let is_right = match row.state {
            JobState::Completed => match (&ending, world.expected(wanted.workflow)) {
                (Some(Ending::Output(Content::Inline(bytes))), Some(expected)) => {
                    let output = serde_json::from_slice::<serde_json::Value>(bytes.as_slice());
                    output.is_ok_and(|output| output == *expected)
                }
                (Some(Ending::Output(_)), None) => true,
                _ => false,
            },
            JobState::Cancelled => was_cancelled(world, *job),
            JobState::DeadLettered => row.lost > 5,
            _ => false,
        };
        if !is_right || told != Some(row.state) {
            let detail = format!(
                "job {job} of workflow {} ends {} with {ending:?}, and its first site says {told:?}: {row:?}",
                wanted.workflow, row.state
            );
            return broken(Law::Promise(Invariant::EveryJobEndsOrSaysWhyNot), detail);
        }
    }
    Ok(())
}

/// Which of the rows of `job` count. Where a site was given up, the job must be back at its first one, under a higher
/// generation; what the other made of it must have ended, and does not count.
fn counting(
    world: &World,
    job: JobId,
    home: usize,
    mut rows: Vec<(usize, Job)>,
) -> Result<Vec<(usize, Job)>, Violation> {
    if !world.was_abandoned(job) {
        return Ok(rows);
    }
    let generation = rows.iter().find(|(site, _)| *site == home).map(|(_, row)| row.generation);
    let is_past = |row: &Job| row.state.is_ended() && Some(row.generation) < generation;
    match rows.iter().find(|(site, row)| *site != home && !is_past(row)) {
        Some((_, row)) => {
            let detail = format!("job {job} was given up and has generation {generation:?} at home: {row:?}");
            broken(Law::Promise(Invariant::AtMostOneActor), detail)
        }
        None => {
            rows.retain(|(site, _)| *site == home);
            Ok(rows)
        }
    }
}

fn was_cancelled(world: &World, job: JobId) -> bool {
    world.sites.iter().any(|site| site.judge.jobs.get(&job).is_some_and(|facts| facts.was_cancelled))
}

fn dump(reader: &impl StateRead) -> Vec<fleet_store::RawRow> {
    let group = reader.group();
    let mut end = group.as_bytes().to_vec();
    end.push(0xff);
    let from = std::ops::Bound::Included(group.as_bytes().as_slice());
    reader.raw_range(from, &end, usize::MAX, false).expect("the state can be read")
}

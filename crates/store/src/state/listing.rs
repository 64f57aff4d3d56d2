//! Listing of jobs, those that went to other sites too, newest first in pages, and finding one by a prefix of its id.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::JobId;
use fleet_core::limits::PRIORITY_MAX;

use super::index::rank_of_priority;
use super::moves;
use super::tables::{JOB_SPECS, JOBS, JOBS_BY_STATE, MIRRORS_BY_STATE, MOVES};
use crate::record::{Job, JobSpec, JobState, Mirror, Move};
use crate::{Error, StateRead};

/// Most index rows that one page looks at, so that a filter that matches nothing cannot hold a reader for long.
const ROWS_PER_PAGE_MAX: usize = 10_000;
/// Index rows fetched at a time from one run.
const ROWS_PER_FETCH: usize = 64;

/// Which jobs a listing wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these states; empty means all.
    pub states: Vec<JobState>,
    /// Only this workflow: `namespace/name` or `namespace/name:version`.
    pub workflow: Option<String>,
}

impl Filter {
    fn wants(&self, spec: &JobSpec) -> bool {
        let Some(wanted) = &self.workflow else {
            return true;
        };
        let workflow = &spec.workflow;
        let (name, version) = match wanted.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => (wanted.as_str(), None),
        };
        name.split_once('/') == Some((workflow.namespace.as_str(), workflow.name.as_str()))
            && version.is_none_or(|version| version == workflow.version)
    }
}

/// A listed job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// It lives here, or is under way from here.
    Here(Job),
    /// It lives at another site.
    Elsewhere(Move, Mirror),
}

impl Listed {
    /// Its place in the order of submission at this group.
    pub fn number(&self) -> u64 {
        match self {
            Self::Here(job) => job.number,
            Self::Elsewhere(_, mirror) => mirror.number,
        }
    }
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The jobs, newest first.
    pub jobs: Vec<(JobId, Listed, JobSpec)>,
    /// Where the next page begins: jobs with a lower number. `None` if this was the last.
    pub next: Option<u64>,
}

/// The jobs that `filter` wants with numbers below `below`, newest first, at most `limit`. With a rare filter a page may
/// be short, even empty, and still have a next one.
pub fn list(state: &impl StateRead, filter: &Filter, below: Option<u64>, limit: usize) -> Result<Page, Error> {
    let mut merge = Merge::start(state, &filter.states, below)?;
    let mut page = Page::default();
    for _ in 0..ROWS_PER_PAGE_MAX {
        let Some((number, id)) = merge.pop(state)? else {
            page.next = None;
            return Ok(page);
        };
        page.next = Some(number);
        let (Some(job), Some(spec)) = (listed(state, id)?, state.get(&JOB_SPECS, &id)?) else {
            return Err(Error::corrupt("jobs_by_state", format!("job {id} has no row")));
        };
        if filter.wants(&spec) {
            page.jobs.push((id, job, spec));
            if page.jobs.len() >= limit {
                break;
            }
        }
    }
    if merge.pop(state)?.is_none() {
        page.next = None;
    }
    Ok(page)
}

/// The job `id` as a listing shows it.
pub fn listed(state: &impl StateRead, id: JobId) -> Result<Option<Listed>, Error> {
    if let Some(job) = state.get(&JOBS, &id)? {
        return Ok(Some(Listed::Here(job)));
    }
    Ok(moves::mirror(state, id)?.map(|(moved, mirror)| Listed::Elsewhere(moved, mirror)))
}

/// Runs of the index, one for each state (and priority, for queued jobs), merged by number, greatest first.
struct Merge {
    /// What is fetched and not popped, of all runs: number to job and run.
    fetched: BTreeMap<u64, (JobId, usize)>,
    runs: Vec<Run>,
}

/// One stretch of the index in which only the number varies.
struct Run {
    /// Whether it is one of jobs at other sites.
    is_elsewhere: bool,
    prefix: (u8, u8),
    below: u64,
    /// How many of its rows are fetched and not popped.
    waiting: usize,
}

impl Merge {
    fn start(state: &impl StateRead, states: &[JobState], below: Option<u64>) -> Result<Self, Error> {
        let below = below.unwrap_or(u64::MAX);
        let mut runs = Vec::new();
        for wanted in JobState::ALL.into_iter().filter(|wanted| states.is_empty() || states.contains(wanted)) {
            let ranks = if wanted == JobState::Queued { 0..=PRIORITY_MAX } else { 0..=0 };
            runs.extend(ranks.map(|priority| {
                let rank = if wanted == JobState::Queued { rank_of_priority(priority) } else { 0 };
                Run { is_elsewhere: false, prefix: (wanted.number(), rank), below, waiting: 0 }
            }));
            runs.push(Run { is_elsewhere: true, prefix: (wanted.number(), 0), below, waiting: 0 });
        }
        let mut merge = Self { fetched: BTreeMap::new(), runs };
        for run in 0..merge.runs.len() {
            merge.fetch(state, run)?;
        }
        Ok(merge)
    }

    /// The newest job that is left.
    fn pop(&mut self, state: &impl StateRead) -> Result<Option<(u64, JobId)>, Error> {
        let Some((number, (job, run))) = self.fetched.pop_last() else {
            return Ok(None);
        };
        self.runs[run].waiting -= 1;
        if self.runs[run].waiting == 0 {
            self.fetch(state, run)?;
        }
        Ok(Some((number, job)))
    }

    fn fetch(&mut self, state: &impl StateRead, run: usize) -> Result<(), Error> {
        let Run { is_elsewhere, prefix: (number, rank), below, .. } = self.runs[run];
        let table = if is_elsewhere { &MIRRORS_BY_STATE } else { &JOBS_BY_STATE };
        let rows = state.range_back(table, &(number, rank), &(number, rank, below), ROWS_PER_FETCH)?;
        self.runs[run].waiting = rows.len();
        for ((_, _, number), job) in rows {
            self.runs[run].below = number;
            self.fetched.insert(number, (job, run));
        }
        Ok(())
    }
}

/// What a prefix of a job id found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No job.
    None,
    /// Exactly one.
    One(JobId),
    /// More than one.
    Several,
}

/// The job whose id starts with `prefix`: hexadecimal digits, hyphens ignored. Not a prefix of an id finds none.
pub fn find(state: &impl StateRead, prefix: &str) -> Result<Found, Error> {
    let Some((first, last)) = bounds(prefix) else {
        return Ok(Found::None);
    };
    let here = state.range(&JOBS, &first, &(last, 0_u8), 2)?.into_iter().map(|(job, _)| job);
    let gone = state.range(&MOVES, &first, &(last, 0_u8), 2)?.into_iter().map(|(job, _)| job);
    // A job that is under way is in both.
    let found: BTreeSet<JobId> = here.chain(gone).collect();
    Ok(match (found.first(), found.len()) {
        (None, _) => Found::None,
        (Some(job), 1) => Found::One(*job),
        _ => Found::Several,
    })
}

/// The least and greatest id with these leading digits.
fn bounds(prefix: &str) -> Option<(JobId, JobId)> {
    let digits: Vec<u8> = prefix
        .chars()
        .filter(|character| *character != '-')
        .map(|character| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    let filled = |filler: u8| {
        let mut bytes = [0; 16];
        for (position, byte) in bytes.iter_mut().enumerate() {
            let digit = |index: usize| digits.get(index).copied().unwrap_or(filler);
            *byte = digit(2 * position) << 4 | digit(2 * position + 1);
        }
        JobId::from_bytes(bytes)
    };
    Some((filled(0), filled(0xf)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_hexadecimal_digits_with_or_without_hyphens() {
        let (first, last) = bounds("0193-A").unwrap();
        assert_eq!(first.to_string(), "0193a000-0000-0000-0000-000000000000");
        assert_eq!(last.to_string(), "0193afff-ffff-ffff-ffff-ffffffffffff");
        let whole = "0193a000-0000-7000-8000-000000000001";
        assert_eq!(bounds(whole).unwrap(), (whole.parse().unwrap(), whole.parse().unwrap()));
        for bad in ["", "-", "xyz", &"0".repeat(33)] {
            assert!(bounds(bad).is_none(), "{bad:?}");
        }
    }
}

//! The gauges of what waits for other sites, read from the state when somebody scrapes.

use fleet_core::{GroupId, Timestamp};
use fleet_store::record::{Content, Peer};
use fleet_store::state::{jobs, moves};
use fleet_store::{Error, StateRead};
use metrics::gauge;

/// Most rows that are counted of a kind and a site: a scrape must stay cheap while a site is away for days.
const COUNTED_MAX: usize = 10_000;
/// Most jobs whose inputs are added up; the others count as if they were like these on average.
const MEASURED_MAX: usize = 256;

/// What waits for one other site.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Waiting {
    /// Jobs that it has not answered, up to [`COUNTED_MAX`].
    pub(super) jobs: usize,
    /// Bytes of their inputs, estimated.
    pub(super) bytes: f64,
    /// Since when the oldest waits.
    pub(super) since: Option<Timestamp>,
    /// Reports that it has not acknowledged, up to [`COUNTED_MAX`].
    pub(super) reports: usize,
}

impl Waiting {
    /// What waits for `peer`.
    pub(super) fn read(state: &impl StateRead, peer: GroupId) -> Result<Self, Error> {
        let rows = moves::outbox(state, peer, None, COUNTED_MAX)?;
        let measured = rows.iter().take(MEASURED_MAX);
        let mut bytes = 0;
        for (_, job) in measured.clone() {
            bytes += jobs::input(state, *job)?.map_or(0, |input| match input {
                Content::Inline(payload) => payload.as_slice().len() as u64,
                Content::Blob { length, .. } => length,
            });
        }
        let since = match rows.first() {
            Some((_, job)) => moves::of_job(state, *job)?.map(|moved| moved.since),
            None => None,
        };
        let share = rows.len() as f64 / measured.len().max(1) as f64;
        let reports = moves::reports(state, peer, None, COUNTED_MAX)?.len();
        Ok(Self { jobs: rows.len(), bytes: bytes as f64 * share, since, reports })
    }
}

/// Sets the gauges of every other site that jobs went to or came from.
pub(super) fn refresh(state: &impl StateRead, now: Timestamp) -> Result<(), Error> {
    for (group, Peer { site, .. }) in moves::peers(state)? {
        let waiting = Waiting::read(state, group)?;
        let site = site.to_string();
        let age_ms = waiting.since.map_or(0, |since| now.0.saturating_sub(since.0));
        gauge!("fleet_outbox_jobs", "site" => site.clone()).set(waiting.jobs as f64);
        gauge!("fleet_outbox_bytes", "site" => site.clone()).set(waiting.bytes);
        gauge!("fleet_outbox_oldest_seconds", "site" => site.clone()).set(age_ms as f64 / 1_000.0);
        gauge!("fleet_reports_waiting", "site" => site).set(waiting.reports as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleet_core::JobId;
    use fleet_store::Store;
    use fleet_store::record::{Move, Outgoing, PeerSite, Serial};
    use fleet_store::state::tables::{JOB_INPUTS, MOVES, OUTBOX, REPORTS};

    use super::*;

    #[test]
    fn what_waits_for_a_site_is_counted_measured_and_dated_by_its_oldest() {
        let (own, peer) = (GroupId::from_bytes([1; 16]), GroupId::from_bytes([2; 16]));
        let store = Store::in_memory().unwrap();
        let fill = store.apply(own, move |state| {
            for number in 1..=2 * MEASURED_MAX as u64 {
                let (job, serial) = (JobId::from_bytes(u128::from(number).to_be_bytes()), Serial { epoch: 1, number });
                let to = PeerSite { group: peer, site: "there".parse().unwrap() };
                let since = Timestamp(1_000 + number);
                state.put(
                    &MOVES,
                    &job,
                    &Move { to, number: serial, generation: 1, since, wish: None, mirror: None },
                )?;
                state.put(&OUTBOX, &(peer, serial), &Outgoing { job })?;
                state.put(&JOB_INPUTS, &job, &Content::inline(vec![b'1'; 10]))?;
            }
            state.put(&REPORTS, &(peer, Serial { epoch: 1, number: 1 }), &Outgoing { job: JobId::from_bytes([9; 16]) })
        });
        fill.wait().unwrap();
        let reader = store.reader(own).unwrap();
        let jobs = 2 * MEASURED_MAX;
        let waiting = Waiting { jobs, bytes: 10.0 * jobs as f64, since: Some(Timestamp(1_001)), reports: 1 };
        assert_eq!(Waiting::read(&reader, peer).unwrap(), waiting);
        assert_eq!(Waiting::read(&reader, GroupId::from_bytes([3; 16])).unwrap(), Waiting::default());
    }
}

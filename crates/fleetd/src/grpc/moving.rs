//! What people are told of a job that goes to another site or is there: as of when that is known, why it is not there yet,
//! and what to do where it does not go by itself. Pure.

use std::time::Duration;

use fleet_core::time::age;
use fleet_core::{JobId, Timestamp};
use fleet_node::ports::KnownSite;
use fleet_store::record::{Move, MoveWish};

/// How long a move may take over a link before a person is told that it takes long.
const SLOW_AFTER: Duration = Duration::from_secs(60);

/// Why `job`, which went by `moved`, is where it is at `now`. `known` is what is known of the other site, `said` what the
/// job's own row says.
pub(super) fn why(job: JobId, moved: &Move, known: Option<&KnownSite>, said: &str, now: Timestamp) -> String {
    let site = &moved.to.site;
    let Some(known) = known.filter(|known| known.group == moved.to.group) else {
        return format!(
            "{said}; that site is not part of the fleet any more, or was founded anew: if it is lost for good, \
             `fleetctl outbox abandon {job}` queues the job here"
        );
    };
    let heard = known.heard_at.map(|at| age(now.saturating_since(at)));
    match (&moved.mirror, known.is_linked, heard) {
        (Some(mirror), ..) if mirror.standing.state.is_ended() => said.to_owned(),
        (Some(_), true, _) => said.to_owned(),
        (Some(_), false, Some(heard)) => {
            format!("{said}; this is how it stood {heard} ago, when {site} was last heard")
        }
        (Some(_), false, None) => format!("{said}; {site} is not heard now"),
        (None, false, heard) => {
            let heard = heard.map_or("not heard yet".to_owned(), |heard| format!("last heard {heard} ago"));
            format!("{said}, which was {heard}: it {} by itself when there is a link", goes(moved.wish))
        }
        (None, true, _) if now.saturating_since(moved.since) >= SLOW_AFTER => format!(
            "{said}, which is linked and has not answered for it yet: it is full, or had settled the move before one of the \
             two sites was recovered. `fleetctl job get {job} --site {site}` tells whether it has the job; if not, \
             `fleetctl outbox abandon {job}` queues it here"
        ),
        (None, true, _) => said.to_owned(),
    }
}

fn goes(wish: Option<MoveWish>) -> &'static str {
    match wish {
        None => "goes",
        Some(MoveWish::Recall) => "comes back",
        Some(MoveWish::Cancel) => "ends",
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::GroupId;
    use fleet_store::record::{JobState, Mirror, PeerSite, Serial, Standing};

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn moved(mirror: Option<JobState>) -> Move {
        let mirror = mirror.map(|state| Mirror {
            number: 1,
            priority: 10,
            created_at: Timestamp(0),
            standing: Standing { state, ..Standing::queued() },
            heard: None,
            ended_here: None,
        });
        let to = PeerSite { group: GroupId::from_bytes([7; 16]), site: "plant-07".parse().unwrap() };
        Move { to, number: Serial::default(), generation: 1, since: Timestamp(0), wish: None, mirror }
    }

    fn known(is_linked: bool, heard_at: Option<Timestamp>) -> KnownSite {
        KnownSite { group: GroupId::from_bytes([7; 16]), is_linked, heard_at, robots: Vec::new() }
    }

    fn told(moved: &Move, known: Option<&KnownSite>, now_ms: u64) -> String {
        why(JobId::default(), moved, known, "goes to site plant-07", Timestamp(now_ms))
    }

    #[test]
    fn a_job_that_waits_for_a_link_says_since_when_the_site_is_silent() {
        let away = known(false, Some(Timestamp(0)));
        let text = told(&moved(None), Some(&away), 3 * HOUR_MS);
        assert_eq!(text, "goes to site plant-07, which was last heard 3 h ago: it goes by itself when there is a link");
        let recalled = Move { wish: Some(MoveWish::Recall), ..moved(None) };
        assert!(told(&recalled, Some(&away), HOUR_MS).ends_with("it comes back by itself when there is a link"));
        assert!(told(&moved(None), Some(&known(false, None)), HOUR_MS).contains("not heard yet"));
    }

    #[test]
    fn a_move_that_is_not_answered_over_a_link_names_the_command_that_ends_it() {
        let linked = known(true, Some(Timestamp(0)));
        assert_eq!(told(&moved(None), Some(&linked), 59_000), "goes to site plant-07", "it may just be under way");
        let text = told(&moved(None), Some(&linked), 60_000);
        let id = JobId::default();
        for part in ["recovered", &format!("job get {id} --site plant-07"), &format!("outbox abandon {id}")] {
            assert!(text.contains(part), "{text}");
        }
        let anew = KnownSite { group: GroupId::from_bytes([8; 16]), ..linked };
        for other in [None, Some(&anew)] {
            assert!(told(&moved(None), other, 0).contains(&format!("outbox abandon {id}")));
        }
    }

    #[test]
    fn a_job_at_a_silent_site_says_as_of_when_it_is_known_and_an_ended_one_does_not() {
        let away = known(false, Some(Timestamp(0)));
        let text = told(&moved(Some(JobState::Running)), Some(&away), 3 * HOUR_MS);
        assert!(text.ends_with("this is how it stood 3 h ago, when plant-07 was last heard"), "{text}");
        for (state, known) in [(JobState::Completed, away), (JobState::Running, known(true, None))] {
            assert_eq!(told(&moved(Some(state)), Some(&known), HOUR_MS), "goes to site plant-07");
        }
    }
}

//! The checks of how this node's site stands with each other one. Whoever holds the link tells of the link, the leader of
//! what waits for it; where there is no link, the leader, who dials.

use std::time::Duration;

use fleet_api::pb::v1;
use fleet_core::time::age;
use fleet_core::{Clock, SiteName, SystemClock, Timestamp};
use fleet_node::catalog::Between;
use fleet_store::state::moves;

use super::check;
use super::pairs::{OFFSET_FAIL, OFFSET_WARN};
use crate::site::Site;
use crate::sites::{LinkStanding, SiteLinks, SiteStanding};

/// Jobs that wait longer for a site that is linked are worth a look.
const WAITING_WARN: Duration = Duration::from_secs(600);
/// Linked sites whose catalogs were not compared for longer are worth a look: they are every ten seconds.
const CATALOG_WARN: Duration = Duration::from_secs(120);

/// What is known of another site.
#[derive(Clone, Debug)]
struct Found {
    standing: SiteStanding,
    /// What only the leader knows of it, if this node leads.
    led: Option<Led>,
}

/// What a leader knows.
#[derive(Clone, Copy, Debug, Default)]
struct Led {
    /// Since when the job has waited that waits longest for an answer of the site.
    oldest: Option<Timestamp>,
    /// How long ago the catalogs were last compared.
    compared: Option<Duration>,
}

/// Checks every other site that this node has to tell of. `own_address` is where others reach this node.
pub(super) fn run(site: &Site, links: &SiteLinks, catalogs: &Between, own_address: &str) -> Vec<v1::Check> {
    let leads = site.group().serving_term().is_some();
    let found = links.standings().into_iter().map(|standing| Found {
        led: leads
            .then(|| Led { oldest: oldest_waiting(site, &standing.site), compared: catalogs.compared(&standing.site) }),
        standing,
    });
    let now = SystemClock.now();
    found.filter_map(|found| judge(&found, own_address, now)).collect()
}

/// Since when the job has waited that waits longest for `other` to take it. What cannot be read is told by other checks.
fn oldest_waiting(site: &Site, other: &SiteName) -> Option<Timestamp> {
    let group = site.roster().ok()?.other_sites.iter().find(|(name, _)| name == other)?.1.group;
    let state = site.reader().ok()?;
    let (_, job) = *moves::outbox(&state, group, None, 1).ok()?.first()?;
    Some(moves::of_job(&state, job).ok()??.since)
}

/// The check of one site; none where another node of this one tells of it.
fn judge(found: &Found, own_address: &str, now: Timestamp) -> Option<v1::Check> {
    let Found { standing, led } = found;
    let name = format!("link to {}", standing.site);
    let (mut result, mut details, mut next_step) = ("ok", Vec::new(), String::new());
    let mut raise = |to: &'static str, step: String| {
        if result == "ok" || to == "fail" {
            (result, next_step) = (to, step);
        }
    };
    match (&standing.link, led) {
        (Some(link), _) => linked(link, standing.heard_at, now, &mut details, &mut raise),
        (None, None) => return None,
        (None, Some(_)) if standing.is_held_elsewhere => details.push("held by another node of this site".to_owned()),
        (None, Some(_)) => {
            details.push(not_linked(standing, now));
            raise("warn", how_to_open(standing, own_address));
        }
    }
    let is_linked = standing.link.is_some() || standing.is_held_elsewhere;
    if let Some(oldest) = led.and_then(|led| led.oldest) {
        let waits = now.saturating_since(oldest);
        details.push(format!("a job has waited for it for {}", age(waits)));
        if is_linked && waits >= WAITING_WARN {
            raise("warn", format!("`fleetctl outbox list --site {}` shows what waits.", standing.site));
        }
    }
    if let Some(compared) = led.and_then(|led| led.compared).filter(|_| is_linked) {
        details.push(format!("catalogs compared {} ago", age(compared)));
        if compared >= CATALOG_WARN {
            raise("warn", "The line may be too narrow for what is under way; the leader's log says more.".to_owned());
        }
    }
    Some(check(&name, result, details.join(", "), &next_step))
}

fn linked(
    link: &LinkStanding,
    heard_at: Option<Timestamp>,
    now: Timestamp,
    details: &mut Vec<String>,
    raise: &mut impl FnMut(&'static str, String),
) {
    let by = if link.is_dialled { "dialled from here" } else { "dialled from there" };
    details.push(format!("up, {by}, node {} at the other end", link.node));
    if let Some(heard_at) = heard_at {
        details.push(format!("heard {} ago", age(now.saturating_since(heard_at))));
    }
    let round_trip = link.figures.round_trip;
    if let Some(round_trip) = round_trip {
        details.push(format!("round trip {} ms", round_trip.as_millis()));
    }
    let Some(offset_ms) = link.clock_offset_ms else { return };
    details.push(format!("its clock is at {offset_ms:+} ms"));
    // A report is as old as it was under way, which cannot be told from a clock that is late.
    let surely = Duration::from_millis(offset_ms.unsigned_abs()).saturating_sub(round_trip.unwrap_or_default());
    let step = "Let a time service set the clock that is wrong; leases do not depend on it.";
    if surely > OFFSET_FAIL {
        raise("fail", format!("{step} What is written to the catalog by the later clock waits for the other."));
    } else if surely > OFFSET_WARN {
        raise("warn", step.to_owned());
    }
}

fn not_linked(standing: &SiteStanding, now: Timestamp) -> String {
    let heard = match standing.heard_at {
        Some(heard_at) => format!("no link, last heard {} ago", age(now.saturating_since(heard_at))),
        None => "no link, never heard from here".to_owned(),
    };
    match &standing.failed_dial {
        Some(dial) => format!("{heard}; {} was dialled: {}", dial.address, dial.problem),
        None if standing.addresses.is_empty() => format!("{heard}; no address of it is known"),
        None => format!("{heard}; {} is dialled next", standing.addresses[0]),
    }
}

fn how_to_open(standing: &SiteStanding, own_address: &str) -> String {
    let from_there = format!("from a node there to {own_address}");
    let address = standing.failed_dial.as_ref().map(|dial| &dial.address).or(standing.addresses.first());
    match address {
        Some(address) => format!(
            "Open TCP from this node to {address}, or {from_there}; one of them is enough. It is dialled again by itself."
        ),
        None => format!("Open TCP {from_there}: it dials by itself."),
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::NodeId;
    use fleet_node::site_link::LinkFigures;

    use super::*;
    use crate::sites::FailedDial;

    const NOW: Timestamp = Timestamp(100_000_000);

    fn unlinked() -> Found {
        let standing = SiteStanding {
            site: "plant-07".parse().unwrap(),
            link: None,
            is_held_elsewhere: false,
            heard_at: None,
            addresses: vec!["10.7.0.11:7000".to_owned()],
            failed_dial: None,
            bytes: Default::default(),
        };
        Found { standing, led: Some(Led::default()) }
    }

    fn with_link(clock_offset_ms: i64) -> Found {
        let mut found = unlinked();
        found.standing.heard_at = Some(Timestamp(NOW.0 - 1_000));
        found.standing.link = Some(LinkStanding {
            node: NodeId::from_bytes([7; 16]),
            is_dialled: true,
            figures: LinkFigures { round_trip: Some(Duration::from_millis(40)), ..LinkFigures::default() },
            clock_offset_ms: Some(clock_offset_ms),
        });
        found
    }

    fn said(found: &Found) -> (String, String, String) {
        let check = judge(found, "hq-1:7000", NOW).unwrap();
        assert_eq!(check.name, "link to plant-07");
        assert_eq!(check.result == "ok", check.next_step.is_empty(), "{check:?}");
        (check.result, check.detail, check.next_step)
    }

    #[test]
    fn a_link_that_is_up_tells_who_dialled_how_far_it_is_and_what_the_clocks_say() {
        let (result, detail, _) = said(&with_link(-12));
        assert_eq!(result, "ok");
        for part in ["up, dialled from here", "heard 1 s ago", "round trip 40 ms", "-12 ms"] {
            assert!(detail.contains(part), "{part:?} in {detail:?}");
        }
        assert_eq!(said(&with_link(530)).0, "ok", "the report was under way for a while");
        assert_eq!(said(&with_link(900)).0, "warn");
        assert_eq!(said(&with_link(-700_000)).0, "fail");
    }

    #[test]
    fn a_site_that_was_never_reached_warns_with_the_address_and_what_to_open() {
        let mut found = unlinked();
        let problem = "connection refused".to_owned();
        found.standing.failed_dial = Some(FailedDial { address: "10.7.0.12:7000".to_owned(), problem });
        let (result, detail, next_step) = said(&found);
        assert_eq!(result, "warn");
        assert_eq!(detail, "no link, never heard from here; 10.7.0.12:7000 was dialled: connection refused");
        assert!(
            next_step.contains("from this node to 10.7.0.12:7000, or from a node there to hq-1:7000"),
            "{next_step}"
        );
        found.standing.heard_at = Some(Timestamp(NOW.0 - 3 * 3_600_000));
        assert!(said(&found).1.starts_with("no link, last heard 3 h ago; "), "{:?}", said(&found));
        found.standing.failed_dial = None;
        found.standing.addresses.clear();
        assert!(said(&found).2.starts_with("Open TCP from a node there to hq-1:7000"), "{:?}", said(&found));
    }

    #[test]
    fn the_leader_tells_of_what_waits_and_who_neither_leads_nor_holds_the_link_tells_nothing() {
        let mut found = with_link(0);
        let waiting = |seconds: u64| Led { oldest: Some(Timestamp(NOW.0 - seconds * 1_000)), compared: None };
        found.led = Some(waiting(60));
        assert!(
            said(&found).0 == "ok" && said(&found).1.contains("a job has waited for it for 1 min"),
            "{:?}",
            said(&found)
        );
        found.led = Some(waiting(900));
        assert!(said(&found).0 == "warn" && said(&found).2.contains("outbox list --site plant-07"));
        found.led = Some(Led { compared: Some(Duration::from_secs(500)), ..Led::default() });
        assert_eq!(said(&found).0, "warn");
        found.led = None;
        assert_eq!(said(&found).0, "ok", "the holder need not lead");
        found.standing.link = None;
        assert!(judge(&found, "hq-1:7000", NOW).is_none());
        found.standing.is_held_elsewhere = true;
        found.led = Some(Led::default());
        assert_eq!(said(&found).1, "held by another node of this site");
    }
}

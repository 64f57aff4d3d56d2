//! `status`: fleet, site and queue at a glance.

use std::collections::HashMap;

use fleet_api::pb::v1;
use fleet_core::{Clock, SystemClock, Timestamp};

use super::site::standing;
use crate::error::Failure;
use crate::session::Session;
use crate::{render, view};

/// Most sites without a link that are named.
const NAMED_MAX: usize = 4;

pub(crate) async fn run(session: &Session) -> Result<(), Failure> {
    let status = session.ask(session.client().get_status(v1::GetStatusRequest {})).await?;
    Ok(render::data(session.format, &view::status(&status), || text(&status))?)
}

/// The state of things for people; `top` shows it too.
pub(crate) fn text(status: &v1::Status) -> String {
    let site = status.site.clone().unwrap_or_default();
    let fleet = fleet_core::FleetId::from_slice(&status.fleet_id).map(|id| id.to_string()).unwrap_or_default();
    let kind = if status.dev { " (development)" } else { "" };
    let leader = if site.leader.is_empty() { "none known".to_owned() } else { site.leader.clone() };
    let held = if site.held { ", held after a recovery" } else { "" };
    let checks = status.checks.iter().filter(|check| check.result != "ok");
    let checks: Vec<String> =
        checks.map(|check| format!("{} {}: {}", check.name, check.result, check.detail)).collect();
    let mut rows = vec![
        ("fleet", format!("{fleet}{kind}")),
        ("health", status.health.clone()),
        ("checks", if checks.is_empty() { format!("{} ok", status.checks.len()) } else { checks.join("; ") }),
        ("asked", format!("{} (version {})", status.node, status.version)),
        ("site", format!("{}{held}", site.name)),
        ("leader", leader),
        ("voters", site.voters.join(", ")),
        ("nodes", counts(&status.nodes)),
        ("jobs", counts(&status.jobs)),
    ];
    if !status.other_sites.is_empty() {
        rows.push(("sites", other_sites(&status.other_sites, SystemClock.now())));
    }
    render::list(&rows)
}

/// How the other sites stand: how many there are a link to, and by name those to which there is none.
fn other_sites(sites: &[v1::Site], now: Timestamp) -> String {
    let (linked, others): (Vec<_>, Vec<_>) = sites.iter().partition(|site| site.state == "alive");
    let named = others.iter().take(NAMED_MAX).map(|site| format!("{} {}", site.name, standing(site, now)));
    let mut parts = vec![format!("{} of {} others linked", linked.len(), sites.len())];
    parts.extend(named);
    if others.len() > NAMED_MAX {
        parts.push(format!("{} more are not", others.len() - NAMED_MAX));
    }
    parts.join(", ")
}

fn counts<N: Copy + Into<u64>>(map: &HashMap<String, N>) -> String {
    let mut parts: Vec<(&str, u64)> = map.iter().map(|(name, count)| (name.as_str(), (*count).into())).collect();
    parts.retain(|(_, count)| *count > 0);
    parts.sort_unstable();
    if parts.is_empty() {
        return "none".to_owned();
    }
    parts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_without_a_link_are_named_and_many_are_counted() {
        let now = Timestamp(20_000_000);
        let site = |number: u32, state: &str| v1::Site {
            name: format!("plant-{number}"),
            state: state.to_owned(),
            heard_ms: 20_000_000 - 3 * 3_600_000 - 5,
            ..v1::Site::default()
        };
        assert_eq!(other_sites(&[site(1, "alive"), site(2, "alive")], now), "2 of 2 others linked");
        let cut = [site(1, "alive"), site(2, "silent"), site(3, "unheard")];
        let said = "1 of 3 others linked, plant-2 last heard 3 h ago, plant-3 not heard yet";
        assert_eq!(other_sites(&cut, now), said);
        let many: Vec<_> = (0..40).map(|number| site(number, "silent")).collect();
        assert!(other_sites(&many, now).ends_with("plant-3 last heard 3 h ago, 36 more are not"));
        assert!(!text(&v1::Status::default()).contains("sites"), "a fleet of one site has no others");
    }
}

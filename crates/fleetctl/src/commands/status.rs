//! `status`: fleet, site and queue at a glance.

use std::collections::HashMap;

use fleet_api::pb::v1;

use crate::error::Failure;
use crate::session::Session;
use crate::{render, view};

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
    render::list(&[
        ("fleet", format!("{fleet}{kind}")),
        ("health", status.health.clone()),
        ("checks", if checks.is_empty() { format!("{} ok", status.checks.len()) } else { checks.join("; ") }),
        ("asked", format!("{} (version {})", status.node, status.version)),
        ("site", format!("{}{held}", site.name)),
        ("leader", leader),
        ("voters", site.voters.join(", ")),
        ("nodes", counts(&status.nodes)),
        ("jobs", counts(&status.jobs)),
    ])
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

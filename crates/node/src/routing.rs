//! Which site a job goes to whose own site has no robot for it. Pure: needs, robots and what is known in, a site out.
//!
//! A site that has a fitting robot keeps the job, however busy: only what no robot here has sends it away. Of several
//! sites a linked one comes first, then the one with the most fitting slots, then the first by name.

use std::cmp::Reverse;
use std::sync::Arc;

use fleet_core::{SessionId, SiteName};
use fleet_store::StateReader;
use fleet_store::record::{JobSpec, NodeStanding, PeerSite};
use fleet_store::state::members;
use fleet_workflow::machine::INTERPRETER_VERSION;

use crate::placement::{Needs, RobotView, unplaced};
use crate::ports::{KnownSites, RobotOffer};

/// Where a job goes, and why there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The site.
    pub to: PeerSite,
    /// Why, for people.
    pub because: String,
}

/// The site to which a job with `needs` goes; `None` if it stays, because a robot of `own` fits or none anywhere does.
pub fn route(needs: &Needs, own: &[RobotView], known: &KnownSites) -> Option<Route> {
    if own.iter().any(|robot| robot.fits(needs)) {
        return None;
    }
    let slots = |robots: &[RobotOffer]| -> u64 {
        robots.iter().filter(|offer| view(offer).fits(needs)).map(|offer| u64::from(offer.slots)).sum()
    };
    let fitting = known.iter().map(|(name, site)| (slots(&site.robots), name, site)).filter(|(slots, ..)| *slots > 0);
    let (_, name, site) = fitting.min_by_key(|(slots, name, site)| (!site.is_linked, Reverse(*slots), *name))?;
    let because = format!("{}; site {name} has one that fits", unplaced(needs, own));
    Some(Route { to: PeerSite { group: site.group, site: name.clone() }, because })
}

/// Why this site can never run a job of another one; `None` if it can.
pub fn why_never(spec: &JobSpec, own: &[RobotView]) -> Option<String> {
    if spec.interpreter > INTERPRETER_VERSION {
        let asked = spec.interpreter;
        return Some(format!("it needs version {asked} of the interpreter, the site has {INTERPRETER_VERSION}"));
    }
    let needs = needs_anywhere(spec);
    (!own.iter().any(|robot| robot.fits(&needs))).then(|| unplaced(&needs, own).to_string())
}

/// What a job asks of a robot at any site. The interpreter is not among it: what robots of other software have is found
/// out where the job comes.
pub fn needs_anywhere(spec: &JobSpec) -> Needs {
    Needs { tags: spec.tags.clone(), capabilities: spec.capabilities.clone() }
}

/// The robots of this site that may have work one day, whether they are there now or not.
pub fn own_robots(state: &StateReader) -> Result<Vec<RobotView>, fleet_store::Error> {
    let nodes = members::nodes(state)?;
    let views = nodes.into_iter().filter(|node| node.standing != NodeStanding::Removed).map(|node| RobotView {
        session: SessionId { node: node.id, boot: 0, number: 0 },
        tags: Arc::from(node.profile.tags),
        capabilities: Arc::from(node.profile.capabilities),
        slots_free: node.profile.slots,
        is_draining: false,
    });
    Ok(views.collect())
}

fn view(offer: &RobotOffer) -> RobotView {
    RobotView {
        session: SessionId { node: fleet_core::NodeId::default(), boot: 0, number: 0 },
        tags: Arc::from(offer.tags.as_slice()),
        capabilities: Arc::from(offer.capabilities.as_slice()),
        slots_free: offer.slots,
        is_draining: false,
    }
}

/// The names of the known sites, for people.
pub fn names(own: &SiteName, known: &KnownSites) -> String {
    let mut names: Vec<String> = known.keys().chain([own]).map(ToString::to_string).collect();
    names.sort();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use fleet_core::{Digest, GroupId};
    use fleet_store::record::WorkflowName;

    use super::*;
    use crate::ports::KnownSite;

    fn site(number: u8, is_linked: bool, tags: &[&str], slots: u32) -> (SiteName, KnownSite) {
        let offer = RobotOffer {
            node: "r".to_owned(),
            tags: tags.iter().map(ToString::to_string).collect(),
            capabilities: vec!["http".to_owned()],
            slots,
        };
        let known =
            KnownSite { group: GroupId::from_bytes([number; 16]), is_linked, heard_at: None, robots: vec![offer] };
        (format!("site-{number}").parse().unwrap(), known)
    }

    fn needs(tags: &[&str]) -> Needs {
        Needs { tags: tags.iter().map(ToString::to_string).collect(), capabilities: Vec::new() }
    }

    fn robot(tags: &[&str]) -> RobotView {
        let (_, site) = site(1, true, tags, 2);
        view(&site.robots[0])
    }

    fn routed(known: &KnownSites) -> Option<String> {
        route(&needs(&["gpu"]), &[robot(&[])], known).map(|route| route.to.site.to_string())
    }

    #[test]
    fn a_job_goes_only_where_its_own_site_has_no_robot_for_it_and_another_has() {
        let known = KnownSites::from([site(1, true, &["arm"], 9), site(2, true, &["gpu"], 1)]);
        let route_of = |tags: &[&str], own: &[RobotView]| route(&needs(tags), own, &known);
        assert_eq!(route_of(&["gpu"], &[robot(&["gpu"])]), None, "its own robot will do");
        assert_eq!(route_of(&["laser"], &[robot(&[])]), None, "nobody has one");
        let route = route_of(&["gpu"], &[robot(&[])]).unwrap();
        assert_eq!(route.to.site.as_str(), "site-2");
        assert_eq!(route.because, "no robot has the tag `gpu`; site site-2 has one that fits");
    }

    #[test]
    fn a_job_goes_only_where_a_robot_may_call_its_host_and_is_taken_only_there() {
        let allowing = |number, hosts: &[&str]| {
            let (name, mut known) = site(number, true, &["arm"], 2);
            known.robots[0].capabilities.extend(hosts.iter().map(|host| format!("http:{host}")));
            known.robots[0].capabilities.sort();
            (name, known)
        };
        let capabilities = ["http", "http:api.example"].map(str::to_owned).to_vec();
        let needs = Needs { tags: vec!["arm".to_owned()], capabilities: capabilities.clone() };
        let known = KnownSites::from([allowing(1, &["other.example"]), allowing(2, &["*.example"])]);
        assert_eq!(route(&needs, &[], &known).unwrap().to.site.as_str(), "site-2");
        let closed = KnownSites::from([allowing(1, &["other.example"])]);
        assert_eq!(route(&needs, &[], &closed), None, "it stays here, where its reason says what is missing");
        let spec = JobSpec {
            workflow: WorkflowName { namespace: "n".into(), name: "w".into(), version: "1.0.0".into() },
            definition: Digest::of(b"definition"),
            interpreter: INTERPRETER_VERSION,
            site: SiteName::default(),
            tags: needs.tags.clone(),
            capabilities,
            lost_max: 5,
            finish_within_ms: None,
            retry_of: None,
        };
        let robots = |known: &KnownSites| known.values().map(|site| view(&site.robots[0])).collect::<Vec<_>>();
        assert_eq!(why_never(&spec, &robots(&known)), None);
        let why = why_never(&spec, &robots(&closed)).unwrap();
        assert_eq!(why, "no robot allows http to api.example: add `api.example` to `robot.allow.http` of a node");
    }

    #[test]
    fn a_linked_site_comes_before_a_larger_one_and_a_larger_one_before_an_earlier_name() {
        let mut known = KnownSites::from([site(1, true, &["gpu"], 1), site(2, true, &["gpu"], 4)]);
        assert_eq!(routed(&known).as_deref(), Some("site-2"));
        known.extend([site(3, false, &["gpu"], 99)]);
        assert_eq!(routed(&known).as_deref(), Some("site-2"));
        known.extend([site(2, true, &["gpu"], 1)]);
        assert_eq!(routed(&known).as_deref(), Some("site-1"));
    }
}

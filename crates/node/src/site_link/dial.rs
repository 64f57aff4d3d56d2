//! Whom to dial and which links to end: a pure plan fed with what is known, results and time.
//!
//! Both sides of a pair of sites compute the same rank of two links, so that of two that were dialled at once the same
//! one stays. Invariants: only the node that leads dials; a site is dialled by one dial at a time, never while this site
//! has a link to it; a dialled link ends when its node does not lead any more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::SiteName;

use super::frame::Hello;

/// First pause after a failed dial; doubles up to a bound.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause between dials of a site that was heard once: when a cut ends, however long it was, this is waited for.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The same of one that was never heard, as of a plant that can only dial out itself: likely it cannot be dialled from here.
const PAUSE_UNHEARD_MAX: Duration = Duration::from_secs(15);
/// Most addresses of one site that are tried in turn.
const ADDRESSES_MAX: usize = 32;

/// Which of two links between the same sites stays: the lesser. The one dialled by the site whose name comes first; then
/// the one dialled under the later epoch and term, then the one dialled later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkRank {
    dialled_by: SiteName,
    epoch: Reverse<u64>,
    term: Reverse<u64>,
    at: Reverse<u64>,
}

impl LinkRank {
    /// The rank of the link that the node that said `dialler` has dialled.
    pub fn of(dialler: &Hello) -> Self {
        Self {
            dialled_by: dialler.site.clone(),
            epoch: Reverse(dialler.epoch),
            term: Reverse(dialler.term),
            at: Reverse(dialler.at.0),
        }
    }
}

/// A link that this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFact {
    /// Names it in this process.
    pub number: u64,
    /// The other site.
    pub site: SiteName,
    /// Whether this node dialled it.
    pub is_dialled: bool,
    /// Its rank.
    pub rank: LinkRank,
}

/// What is known when the plan is asked.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// Whether this node leads its site's group.
    pub is_leading: bool,
    /// The other sites, each with where its nodes may answer, the likeliest first.
    pub sites: &'a BTreeMap<SiteName, Vec<String>>,
    /// Those of them that were heard once.
    pub heard: &'a BTreeSet<SiteName>,
    /// The links this node holds.
    pub links: &'a [LinkFact],
    /// Sites to which another living node of this site holds a link.
    pub held_elsewhere: &'a BTreeSet<SiteName>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// Dial this address, which should be one of `site`, and tell [`DialPlan::dialled`] how it went.
    Dial {
        /// The site.
        site: SiteName,
        /// Where.
        address: String,
    },
    /// End this link.
    End {
        /// Which.
        number: u64,
        /// Why.
        reason: &'static str,
    },
}

#[derive(Clone, Debug, Default)]
struct Target {
    next_address: usize,
    failures: u32,
    retry_at: Duration,
    is_dialling: bool,
    is_heard: bool,
}

/// The plan of one node.
#[derive(Debug)]
pub struct DialPlan {
    own: SiteName,
    targets: BTreeMap<SiteName, Target>,
}

impl DialPlan {
    /// The plan of a node of site `own`.
    pub fn new(own: SiteName) -> Self {
        Self { own, targets: BTreeMap::new() }
    }

    /// What to do at `now`.
    pub fn next(&mut self, now: Duration, situation: &Situation<'_>) -> Vec<Dial> {
        self.targets.retain(|site, target| target.is_dialling || situation.sites.contains_key(site));
        let mut dials = self.ends(situation);
        if !situation.is_leading {
            return dials;
        }
        for (site, addresses) in situation.sites {
            let is_linked = self.is_linked(site, situation);
            let target = self.targets.entry(site.clone()).or_default();
            target.is_heard = situation.heard.contains(site);
            if is_linked || target.is_dialling || addresses.is_empty() || now < target.retry_at {
                continue;
            }
            let address = addresses[target.next_address % addresses.len().min(ADDRESSES_MAX)].clone();
            target.is_dialling = true;
            dials.push(Dial::Dial { site: site.clone(), address });
        }
        dials
    }

    /// When [`Self::next`] has something to dial though nothing else happens; `None` if it has not.
    pub fn due(&self, situation: &Situation<'_>) -> Option<Duration> {
        let waits = |(site, target): (&SiteName, &Target)| {
            let has_address = situation.sites.get(site).is_some_and(|addresses| !addresses.is_empty());
            let is_wanted = has_address && !target.is_dialling && !self.is_linked(site, situation);
            is_wanted.then_some(target.retry_at)
        };
        self.targets.iter().filter(|_| situation.is_leading).filter_map(waits).min()
    }

    fn is_linked(&self, site: &SiteName, situation: &Situation<'_>) -> bool {
        situation.links.iter().any(|link| link.site == *site)
            || situation.held_elsewhere.contains(site)
            || *site == self.own
    }

    fn ends(&self, situation: &Situation<'_>) -> Vec<Dial> {
        let mut ends = Vec::new();
        for link in situation.links {
            let better = situation
                .links
                .iter()
                .any(|other| other.site == link.site && (&other.rank, other.number) < (&link.rank, link.number));
            // The other side keeps the link that it dialled if its name comes first, and so does this one.
            let yields = situation.held_elsewhere.contains(&link.site) && link.site < self.own;
            let reason = if better {
                "another link to the same site stays"
            } else if link.is_dialled && !situation.is_leading {
                "this node does not lead any more"
            } else if link.is_dialled && yields {
                "another node of this site holds a link"
            } else {
                continue;
            };
            ends.push(Dial::End { number: link.number, reason });
        }
        ends
    }

    /// Notes at `now` whether the dial of `site` made a link. `jitter`, from 0.5 to 1.5, spreads the pauses of many.
    pub fn dialled(&mut self, now: Duration, site: &SiteName, made: bool, jitter: f64) {
        let target = self.targets.entry(site.clone()).or_default();
        target.is_dialling = false;
        if made {
            target.failures = 0;
            return;
        }
        let longest = if target.is_heard { PAUSE_MAX } else { PAUSE_UNHEARD_MAX };
        let pause = PAUSE_MIN.saturating_mul(1 << target.failures.min(6)).min(longest);
        target.retry_at = now + pause.mul_f64(jitter.clamp(0.5, 1.5)).clamp(PAUSE_MIN, longest);
        target.failures = target.failures.saturating_add(1);
        target.next_address = target.next_address.wrapping_add(1);
    }

    /// Notes at `now` that a link to `site` ended: it is dialled again after a short pause, which lets the other side
    /// notice too.
    pub fn ended(&mut self, now: Duration, site: &SiteName, jitter: f64) {
        let target = self.targets.entry(site.clone()).or_default();
        target.retry_at = target.retry_at.max(now + PAUSE_MIN.mul_f64(jitter.clamp(0.5, 1.5)));
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{GroupId, NodeId, Timestamp};

    use super::*;

    fn site(name: &str) -> SiteName {
        name.parse().unwrap()
    }

    fn hello(name: &str, term: u64, at: u64) -> Hello {
        Hello {
            version: 1,
            site: site(name),
            node: NodeId::from_bytes([1; 16]),
            group: GroupId::from_bytes([2; 16]),
            epoch: 1,
            term,
            at: Timestamp(at),
        }
    }

    fn link(number: u64, is_dialled: bool, dialler: &Hello) -> LinkFact {
        LinkFact { number, site: site("south"), is_dialled, rank: LinkRank::of(dialler) }
    }

    fn sites() -> BTreeMap<SiteName, Vec<String>> {
        BTreeMap::from([(site("south"), vec!["a:1".to_owned(), "b:1".to_owned()])])
    }

    static NOBODY: BTreeSet<SiteName> = BTreeSet::new();

    fn situation<'a>(
        sites: &'a BTreeMap<SiteName, Vec<String>>,
        links: &'a [LinkFact],
        held_elsewhere: &'a BTreeSet<SiteName>,
    ) -> Situation<'a> {
        Situation { is_leading: true, sites, heard: &NOBODY, links, held_elsewhere }
    }

    const fn millis(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn only_the_leader_dials_one_address_after_the_other_with_growing_pauses() {
        let (sites, nobody) = (sites(), BTreeSet::new());
        let mut plan = DialPlan::new(site("north"));
        let follower = Situation { is_leading: false, ..situation(&sites, &[], &nobody) };
        assert_eq!(plan.next(millis(0), &follower), []);
        let (dialled, pauses) = dials_in_vain(&mut plan, &situation(&sites, &[], &nobody));
        assert_eq!(dialled[..4], ["a:1", "b:1", "a:1", "b:1"]);
        assert_eq!(pauses, [0, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
    }

    #[test]
    fn a_site_that_was_heard_is_dialled_every_other_second_however_long_it_is_cut_off() {
        let (sites, nobody, heard) = (sites(), BTreeSet::new(), BTreeSet::from([site("south")]));
        let cut_off = Situation { heard: &heard, ..situation(&sites, &[], &nobody) };
        let (_, pauses) = dials_in_vain(&mut DialPlan::new(site("north")), &cut_off);
        assert_eq!(pauses, [0, 500, 1_000, 2_000, 2_000, 2_000, 2_000, 2_000]);
    }

    /// The addresses of eight dials that all fail, and the pauses before them.
    fn dials_in_vain(plan: &mut DialPlan, leader: &Situation<'_>) -> (Vec<String>, Vec<u128>) {
        let (mut now, mut dialled, mut pauses) = (millis(0), Vec::new(), Vec::new());
        while dialled.len() < 8 {
            let began = now;
            if let Some(due) = plan.due(leader) {
                assert!(due == now || plan.next(due - millis(1), leader).is_empty(), "not before it is due");
                now = due;
            }
            let dials = plan.next(now, leader);
            assert_eq!((dials.len(), plan.due(leader)), (1, None), "nothing is due while it is dialled");
            assert_eq!(plan.next(now, leader), [], "one dial at a time");
            let [Dial::Dial { address, .. }] = dials.as_slice() else { panic!("{dials:?}") };
            dialled.push(address.clone());
            pauses.push((now - began).as_millis());
            plan.dialled(now, &site("south"), false, 1.0);
        }
        (dialled, pauses)
    }

    #[test]
    fn nobody_dials_what_is_linked_and_what_was_linked_is_dialled_again() {
        let (sites, nobody, elsewhere) = (sites(), BTreeSet::new(), BTreeSet::from([site("south")]));
        let mut plan = DialPlan::new(site("north"));
        let links = [link(1, true, &hello("north", 1, 1))];
        assert_eq!(plan.next(millis(0), &situation(&sites, &links, &nobody)), []);
        assert_eq!(plan.next(millis(0), &situation(&sites, &[], &elsewhere)), []);
        plan.ended(millis(1_000), &site("south"), 1.0);
        assert_eq!(plan.due(&situation(&sites, &links, &nobody)), None, "it is linked");
        assert_eq!(plan.due(&situation(&sites, &[], &nobody)), Some(millis(1_500)));
        assert_eq!(plan.next(millis(1_400), &situation(&sites, &[], &nobody)), []);
        assert_eq!(plan.next(millis(1_500), &situation(&sites, &[], &nobody)).len(), 1);
    }

    #[test]
    fn of_two_links_both_sides_keep_the_same_one() {
        let (sites, nobody) = (sites(), BTreeSet::new());
        let (ours, theirs) = (hello("north", 1, 1), hello("south", 9, 9));
        // Each side numbers its links as it likes.
        for (numbers, own, other) in [([1, 2], "north", "south"), ([7, 3], "south", "north")] {
            let mut plan = DialPlan::new(site(own));
            let is_ours = |dialler: &Hello| dialler.site == site(own);
            let of =
                |number, dialler: &Hello| LinkFact { site: site(other), ..link(number, is_ours(dialler), dialler) };
            let links = [of(numbers[0], &ours), of(numbers[1], &theirs)];
            let ends = plan.next(millis(0), &situation(&sites, &links, &nobody));
            let reason = "another link to the same site stays";
            assert_eq!(ends, [Dial::End { number: numbers[1], reason }], "{own}");
        }
    }

    #[test]
    fn a_new_leaders_link_takes_the_place_of_the_old_ones() {
        let (sites, nobody) = (sites(), BTreeSet::new());
        let mut plan = DialPlan::new(site("north"));
        let links = [link(1, false, &hello("south", 4, 1)), link(2, false, &hello("south", 5, 2))];
        let ends = plan.next(millis(0), &situation(&sites, &links, &nobody));
        assert!(matches!(ends.as_slice(), [Dial::End { number: 1, .. }]), "{ends:?}");
    }

    #[test]
    fn who_does_not_lead_any_more_ends_what_it_dialled_and_keeps_what_it_accepted() {
        let (sites, nobody) = (sites(), BTreeSet::new());
        let mut plan = DialPlan::new(site("north"));
        for (is_dialled, expected) in [(true, 1), (false, 0)] {
            let links = [link(1, is_dialled, &hello(if is_dialled { "north" } else { "south" }, 1, 1))];
            let follower = Situation { is_leading: false, ..situation(&sites, &links, &nobody) };
            assert_eq!(plan.next(millis(0), &follower).len(), expected);
        }
    }

    #[test]
    fn where_two_nodes_of_a_site_have_links_the_site_whose_name_comes_last_gives_up_its_own() {
        let (sites, elsewhere) = (sites(), BTreeSet::from([site("south")]));
        let links = [link(1, true, &hello("north", 1, 1))];
        let ends = |own: &str| DialPlan::new(site(own)).next(millis(0), &situation(&sites, &links, &elsewhere));
        assert_eq!(ends("north"), [], "the other side ends its own");
        assert_eq!(ends("west").len(), 1);
    }
}

//! What a site says of its robots, bounded: many robots alike are told as one.

use std::collections::BTreeMap;

use super::frame::{FRAME_BYTES_MAX, Frame, SiteReport};
use crate::placement::HOST_WORD;
use crate::ports::RobotOffer;

/// Most robots told of one by one.
pub(super) const ROBOTS_MAX: usize = 64;
/// Most nodes named in a report.
const NODES_MAX: usize = 8;
/// The length of a report in its frame leaves room for the frame's own bytes.
const REPORT_BYTES_MAX: usize = FRAME_BYTES_MAX - 16;

/// `report` so that it fits a frame. Where there are more than `ROBOTS_MAX` robots, or too many words, those with the same
/// tags and capabilities become one without a name that has all their slots. If that is not enough the hosts that they
/// allow are not told: then a job may come for which there is none, and goes back. What still does not fit is left out,
/// those that offer least first.
pub fn bounded(mut report: SiteReport) -> SiteReport {
    report.nodes.truncate(NODES_MAX);
    if report.robots.len() > ROBOTS_MAX || length(&report) > REPORT_BYTES_MAX {
        report.robots = summed(report.robots);
    }
    if length(&report) > REPORT_BYTES_MAX {
        for robot in &mut report.robots {
            robot.capabilities.retain(|word| !word.starts_with(HOST_WORD));
        }
        report.robots = summed(report.robots);
    }
    report.robots.truncate(ROBOTS_MAX);
    while !report.robots.is_empty() && length(&report) > REPORT_BYTES_MAX {
        report.robots.pop();
    }
    report
}

/// Robots alike as one; those with the most slots first.
fn summed(robots: Vec<RobotOffer>) -> Vec<RobotOffer> {
    let mut slots = BTreeMap::<_, u32>::new();
    for robot in robots {
        let sum = slots.entry((robot.tags, robot.capabilities)).or_default();
        *sum = sum.saturating_add(robot.slots);
    }
    let offer = |((tags, capabilities), slots)| RobotOffer { node: String::new(), tags, capabilities, slots };
    let mut offers: Vec<_> = slots.into_iter().map(offer).collect();
    offers.sort_by_key(|offer| std::cmp::Reverse(offer.slots));
    offers
}

fn length(report: &SiteReport) -> usize {
    postcard::to_allocvec(&Frame::Report(report.clone())).map_or(usize::MAX, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn robots(count: usize, tag: impl Fn(usize) -> String) -> Vec<RobotOffer> {
        let robot = |number| RobotOffer {
            node: format!("robot-{number}"),
            tags: vec![tag(number)],
            capabilities: vec!["shell".to_owned()],
            slots: 2,
        };
        (0..count).map(robot).collect()
    }

    #[test]
    fn few_robots_are_told_one_by_one_and_many_alike_as_one() {
        let few = SiteReport { robots: robots(64, |_| "press".to_owned()), ..SiteReport::default() };
        assert_eq!(bounded(few.clone()), few);
        let many = SiteReport { robots: robots(500, |n| format!("hall-{}", n % 2)), ..SiteReport::default() };
        let offers = bounded(many).robots;
        assert_eq!(offers.iter().map(|offer| offer.slots).collect::<Vec<_>>(), [500, 500]);
    }

    #[test]
    fn a_robot_with_too_many_hosts_is_told_of_without_them() {
        let hosts = |robot: &mut RobotOffer, number: usize| {
            robot.capabilities = (0..64).map(|host| format!("http:{host}.{number:0>60}.example")).collect();
            robot.capabilities.push("http".to_owned());
        };
        let mut robots = robots(20, |_| "press".to_owned());
        robots.iter_mut().enumerate().for_each(|(number, robot)| hosts(robot, number));
        let report = bounded(SiteReport { robots, ..SiteReport::default() });
        let told: Vec<_> = report.robots.iter().map(|robot| (robot.slots, robot.capabilities.as_slice())).collect();
        assert_eq!(told, [(40, ["http".to_owned()].as_slice())], "it may allow any host");
    }

    #[test]
    fn a_report_fits_its_frame_however_large_the_site() {
        let robots = robots(3_000, |n| format!("{n:060}"));
        let report = bounded(SiteReport { robots, ..SiteReport::default() });
        assert!(!report.robots.is_empty());
        assert!(Frame::Report(report).encode().is_ok());
        let wordy = RobotOffer {
            node: "n".repeat(63),
            tags: (0..64).map(|n| format!("{n:063}")).collect(),
            capabilities: (0..200).map(|n| format!("{n:063}")).collect(),
            slots: 1,
        };
        let wordy = SiteReport { robots: vec![wordy], ..SiteReport::default() };
        assert!(Frame::Report(bounded(wordy)).encode().is_ok());
    }
}

//! The placement's rules by example, and laws that hold for any queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::{Strategy, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};

use fleet_core::NodeId;

use super::*;
use crate::queue::Head;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn robot(node: u8, tags: &[&str], slots_free: u32) -> RobotView {
    RobotView {
        session: SessionId { node: NodeId::from_bytes([node; 16]), boot: 1, number: 1 },
        tags: words(tags).into(),
        capabilities: words(&["http"]).into(),
        slots_free,
        is_draining: false,
    }
}

fn job(number: u64) -> JobId {
    JobId::from_bytes(u128::from(number).to_be_bytes())
}

fn class(priority: u8, workflow: &str, tags: &[&str]) -> ClassKey {
    let needs = Needs { tags: words(tags), capabilities: words(&["http"]) };
    ClassKey { priority, workflow: Arc::from(workflow), needs: Arc::new(needs) }
}

fn queue(jobs: &[(u8, &str, &[&str])]) -> Queue {
    let mut queue = Queue::default();
    for (number, (priority, workflow, tags)) in (1..).zip(jobs) {
        queue.insert(&class(*priority, workflow, tags), number, Head { job: job(number), attempt: 0, last: None });
    }
    queue
}

fn numbers(assignments: &[Assigned]) -> Vec<u128> {
    assignments.iter().map(|assigned| assigned.job.0.as_u128()).collect()
}

#[test]
fn priority_then_fairness_then_age() {
    let queue = queue(&[(5, "a", &[]), (10, "a", &[]), (10, "a", &[]), (10, "b", &[]), (20, "c", &[])]);
    assert_eq!(numbers(&placement(&queue, &[robot(1, &[], 9)], 100)), [5, 2, 4, 3, 1]);
    assert_eq!(numbers(&placement(&queue, &[robot(1, &[], 9)], 2)), [5, 2]);
    assert_eq!(numbers(&placement(&queue, &[robot(1, &[], 3)], 100)), [5, 2, 4]);
}

#[test]
fn a_workflow_served_before_lets_others_pass() {
    let mut queue = queue(&[(10, "a", &[]), (10, "a", &[]), (10, "b", &[])]);
    queue.take(job(1));
    assert_eq!(numbers(&placement(&queue, &[robot(1, &[], 1)], 100)), [3]);
}

#[test]
fn a_job_that_fits_nowhere_holds_back_nobody() {
    let queue = queue(&[(20, "a", &["gpu"]), (10, "b", &[])]);
    assert_eq!(numbers(&placement(&queue, &[robot(1, &["x"], 5)], 100)), [2]);
}

#[test]
fn the_emptiest_robot_that_fits_gets_the_job_and_draining_ones_get_none() {
    let queue = queue(&[(10, "a", &[]), (10, "a", &[]), (10, "a", &[])]);
    let draining = RobotView { is_draining: true, ..robot(3, &[], 90) };
    let robots = [robot(1, &[], 1), robot(2, &[], 3), draining];
    let nodes: Vec<u8> =
        placement(&queue, &robots, 100).iter().map(|assigned| assigned.session.node.as_bytes()[0]).collect();
    assert_eq!(nodes, [2, 2, 1]);
}

#[test]
fn of_robots_with_as_many_free_slots_the_one_that_had_the_job_gets_it() {
    let place = |last: u8, robots: &[RobotView]| {
        let mut queue = Queue::default();
        for number in 1..=2 {
            let last = Some(NodeId::from_bytes([last; 16]));
            queue.insert(&class(10, "a", &[]), number, Head { job: job(number), attempt: 1, last });
        }
        let placed = placement(&queue, robots, 100);
        placed.iter().map(|assigned| assigned.session.node.as_bytes()[0]).collect::<Vec<u8>>()
    };
    let even = [robot(1, &[], 2), robot(2, &[], 2), robot(3, &[], 2)];
    assert_eq!(place(3, &even), [3, 1], "the second goes where more is free");
    assert_eq!(place(2, &[robot(1, &[], 2), robot(2, &[], 1), robot(3, &[], 2)]), [1, 3], "load counts for more");
    assert_eq!(place(3, &[robot(1, &[], 1), RobotView { is_draining: true, ..robot(3, &[], 1) }]), [1]);
    assert_eq!(place(9, &even), [1, 2], "the one that had it is gone");
}

#[test]
fn a_job_goes_where_its_hosts_are_allowed() {
    let allowing =
        |node: u8, capabilities: &[&str]| RobotView { capabilities: words(capabilities).into(), ..robot(node, &[], 1) };
    let robots = [
        allowing(1, &["http", "http:*.example", "http:127.0.0.1"]),
        allowing(2, &["http", "http:other"]),
        allowing(3, &["shell"]),
    ];
    for (capabilities, fitting) in [
        (&["http"][..], &[1, 2][..]),
        (&["http", "http:api.example"], &[1]),
        (&["http", "http:127.0.0.1", "http:api.example"], &[1]),
        (&["http", "http:other"], &[2]),
        (&["http", "http:elsewhere"], &[]),
    ] {
        let needs = Needs { tags: Vec::new(), capabilities: words(capabilities) };
        let found: Vec<u8> = (1..).zip(&robots).filter(|(_, robot)| robot.fits(&needs)).map(|(node, _)| node).collect();
        assert_eq!(found, fitting, "{capabilities:?}");
    }
    let needs = |host: &str| Needs { tags: Vec::new(), capabilities: vec!["http".to_owned(), format!("http:{host}")] };
    assert_eq!(
        unplaced(&needs("elsewhere"), &robots).to_string(),
        "no robot allows http to elsewhere: add `elsewhere` to `robot.allow.http` of a node"
    );
}

#[test]
fn the_reason_names_what_to_change() {
    let needs = |tags: &[&str], capabilities: &[&str]| Needs { tags: words(tags), capabilities: words(capabilities) };
    let robots = [robot(1, &["a"], 1), robot(2, &["b"], 0)];
    for (needs, text) in [
        (needs(&["gpu"], &[]), "no robot has the tag `gpu`"),
        (needs(&[], &["shell"]), "no robot allows shell: set `robot.allow.shell` of a node"),
        (needs(&[], &["script:js"]), "no robot allows script in js: add `js` to `robot.allow.script` of a node"),
        (needs(&[], &["http", "http:api.example"]), "about to be assigned"),
        (
            needs(&[], &["http", "interpreter:2"]),
            "no robot has version 2 of the interpreter: start a node of the software that accepted it",
        ),
        (needs(&["a", "b"], &[]), "no single robot has all the tags and capabilities it needs"),
        (needs(&["b"], &[]), "every robot that fits is full"),
        (needs(&["a"], &["http"]), "about to be assigned"),
    ] {
        assert_eq!(unplaced(&needs, &robots).to_string(), text);
    }
    assert_eq!(unplaced(&Needs::default(), &[]), Unplaced::NoRobot);
}

#[test]
fn a_long_backlog_costs_no_more_than_a_short_one() {
    let mut queue = Queue::default();
    let class = class(10, "a", &[]);
    for number in 1..=100_000 {
        queue.insert(&class, number, Head { job: job(number), attempt: 0, last: None });
    }
    // A thousand rounds of one slot over the whole backlog: a rescan would look at 100 million jobs.
    for _ in 0..1_000 {
        let placed = placement(&queue, &[robot(1, &[], 1)], 100);
        queue.take(placed[0].job);
    }
    assert_eq!(queue.len(), 99_000);
}

fn any_queue() -> impl Strategy<Value = Vec<(u8, usize, usize)>> {
    prop::collection::vec((0_u8..4, 0_usize..3, 0_usize..4), 0..60)
}

proptest! {
    #[test]
    fn no_slot_is_taken_twice_no_job_placed_where_it_does_not_fit_and_none_left_that_fits(
        jobs in any_queue(),
        slots in prop::collection::vec((0_u32..6, 0_usize..4), 0..5),
    ) {
        const WORKFLOWS: [&str; 3] = ["a", "b", "c"];
        const TAGS: [&[&str]; 4] = [&[], &["x"], &["y"], &["x", "y"]];
        let list: Vec<(u8, &str, &[&str])> =
            jobs.iter().map(|(priority, workflow, tags)| (*priority, WORKFLOWS[*workflow], TAGS[*tags])).collect();
        let queue = queue(&list);
        let robots: Vec<RobotView> =
            (1..).zip(&slots).map(|(node, (free, tags))| robot(node, TAGS[*tags], *free)).collect();
        let placed = placement(&queue, &robots, usize::MAX);

        let distinct: BTreeSet<JobId> = placed.iter().map(|assigned| assigned.job).collect();
        prop_assert_eq!(distinct.len(), placed.len());
        let taken = |view: &RobotView| placed.iter().filter(|assigned| assigned.session == view.session).count();
        for view in &robots {
            prop_assert!(taken(view) <= view.slots_free as usize);
        }
        for (number, (priority, _, tags)) in (1..).zip(&list) {
            let needs = Needs { tags: words(tags), capabilities: words(&["http"]) };
            match placed.iter().find(|assigned| assigned.job == job(number)) {
                Some(assigned) => {
                    prop_assert!(robots.iter().any(|view| view.session == assigned.session && view.fits(&needs)));
                }
                None => {
                    let free = robots.iter().any(|view| view.fits(&needs) && taken(view) < view.slots_free as usize);
                    prop_assert!(!free, "job {} of priority {} fits a free slot", number, priority);
                }
            }
        }
    }
}

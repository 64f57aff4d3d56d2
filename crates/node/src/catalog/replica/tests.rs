//! Properties of the merge: copies agree whatever the order, the losses and the repetitions; deletions last; clocks decide
//! only between writes that did not know of each other.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::limits::{CATALOG_CLOCK_AHEAD_MAX, CATALOG_ENTRIES_MAX};
use fleet_core::{ErrorKind, NodeId, SiteName, Timestamp};
use fleet_store::record::{
    CatalogContent, CatalogEntry, CatalogKey, CatalogStamp, CatalogTime, SignedBy, WorkflowName,
};
use proptest::prelude::{Strategy, prop, prop_assert_eq, proptest};

use super::super::exchange::{Run, Waiting, answer_compare, answer_exchange, compare};
use super::super::message::{Answer, Request, unpack};
use super::super::row::{self, Row};
use super::{Exact, Replica};

const NOON: Timestamp = Timestamp(1_800_000_000_000);

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn name(number: u8) -> WorkflowName {
    WorkflowName { namespace: "n".to_owned(), name: format!("w{number}"), version: "1.0.0".to_owned() }
}

fn file(text: &str) -> CatalogContent {
    row::workflow(text.as_bytes()).unwrap()
}

/// A copy with its entries whole, as a store would keep them.
#[derive(Clone, Debug)]
struct Copy {
    replica: Replica,
    entries: BTreeMap<CatalogKey, CatalogEntry>,
    clock: Timestamp,
    waiting: BTreeMap<Exact, Timestamp>,
}

impl Copy {
    fn new(number: u8) -> Self {
        let replica = Replica::new(node(number), Default::default());
        Self { replica, entries: BTreeMap::new(), clock: NOON, waiting: BTreeMap::new() }
    }

    fn apply(&mut self, change: fleet_store::CatalogChange) {
        self.replica.apply(&change).unwrap();
        self.entries.extend(change.put);
        change.remove.iter().for_each(|key| drop(self.entries.remove(key)));
    }

    fn deploy(&mut self, number: u8, text: &str) -> Result<(), ErrorKind> {
        let planned = self.replica.plan_deploy(vec![(name(number), file(text))], self.clock);
        planned.map(|change| self.apply(change)).map_err(|error| error.kind)
    }

    fn delete(&mut self, number: u8) -> Result<(), ErrorKind> {
        let planned = self.replica.plan_delete(&name(number), self.clock);
        planned.map(|change| self.apply(change)).map_err(|error| error.kind)
    }

    fn merge(&mut self, rows: Vec<Row>) -> super::Merge {
        let mut merge = self.replica.plan_merge(rows, self.clock).unwrap();
        self.apply(std::mem::take(&mut merge.change));
        self.waiting.extend(merge.waiting.iter().copied());
        merge
    }

    fn waiting(&self) -> Waiting {
        self.waiting.iter().filter(|(_, until)| self.clock < **until).map(|(exact, _)| *exact).collect()
    }

    fn rows(&self) -> Vec<Row> {
        self.entries.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// The texts that are deployed.
    fn files(&self) -> BTreeMap<CatalogKey, CatalogContent> {
        let files = self.entries.iter().filter(|(_, entry)| matches!(entry.content, CatalogContent::Workflow { .. }));
        files.map(|(key, entry)| (key.clone(), entry.content.clone())).collect()
    }

    fn look_after(&mut self, members: &BTreeSet<NodeId>) {
        let change = self.replica.plan_inherit(self.clock);
        self.apply(change);
        let change = self.replica.plan_acknowledge(self.clock);
        self.apply(change);
        let change = self.replica.plan_forget(members);
        self.apply(change);
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Compare { root, bits, seen, outlived } => {
                let change = self.replica.plan_learn(&seen, self.clock);
                self.apply(change);
                let (answer, is_same) = answer_compare(&self.replica, root, bits);
                if is_same {
                    let change = self.replica.plan_adopt(&seen, outlived, self.clock);
                    self.apply(change);
                }
                answer
            }
            Request::Exchange(mut exchange) => {
                let gone: Vec<_> = unpack(&exchange.gone).collect();
                let change = self.replica.plan_drop(&gone);
                self.apply(change);
                let merge = self.merge(std::mem::take(&mut exchange.rows));
                let (entries, waiting) = (&self.entries, self.waiting());
                answer_exchange(&self.replica, &exchange, &merge.gone, &waiting, &|key| Ok(entries.get(key).cloned()))
                    .unwrap()
            }
            Request::Offer(rows) => {
                self.merge(rows);
                Answer::Taken
            }
        }
    }
}

/// What a run between two copies cost.
#[derive(Debug, Default)]
struct Cost {
    questions: usize,
    bytes: usize,
    largest: usize,
}

impl Cost {
    fn add(&mut self, message: &impl serde::Serialize) {
        let bytes = super::super::message::encode(message).unwrap().as_slice().len();
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
    }
}

/// Brings `one` and `other` together, as far as `questions_max` questions go.
fn sync(one: &mut Copy, other: &mut Copy, room_bytes: usize, questions_max: usize) -> Cost {
    let mut cost = Cost::default();
    let mut put = |cost: &mut Cost, request: Request| {
        cost.questions += 1;
        cost.add(&request);
        let answer = other.answer(request);
        cost.add(&answer);
        answer
    };
    for _ in 0..2 {
        let question = compare(&one.replica);
        match put(&mut cost, question) {
            Answer::Same { seen, outlived } => {
                let change = one.replica.plan_adopt(&seen, outlived, one.clock);
                one.apply(change);
                return cost;
            }
            Answer::Differ { bits, sums } => {
                let mut run = Run::begin(&one.replica, bits, &sums, room_bytes, &one.waiting()).unwrap();
                while cost.questions < questions_max {
                    let entries = &one.entries;
                    let question = run.ask(&one.replica, &|key| Ok(entries.get(key).cloned())).unwrap();
                    let Some(question) = question else { break };
                    let Answer::Rows { rows, done, wanted, gone } = put(&mut cost, question) else { unreachable!() };
                    run.heard(rows.len(), done, wanted).unwrap();
                    let gone: Vec<_> = unpack(&gone).collect();
                    let change = one.replica.plan_drop(&gone);
                    one.apply(change);
                    run.merged(&one.merge(rows));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    cost
}

fn settle(copies: &mut [Copy], members: &BTreeSet<NodeId>) {
    for _ in 0..6 {
        for one in 0..copies.len() {
            for other in 0..copies.len() {
                if one != other {
                    let mut mine = copies[one].clone();
                    sync(&mut mine, &mut copies[other], 4_096, usize::MAX);
                    copies[one] = mine;
                }
            }
            copies[one].look_after(members);
        }
    }
}

fn entry() -> impl Strategy<Value = Row> {
    let stamp = (1_u64..4, 0_u64..3, 0_u32..2, 1_u8..4);
    (0_u8..3, stamp, 1_u64..4, prop::option::of(0_u8..3)).prop_map(|(key, (version, at, count, who), number, text)| {
        let content = match text {
            Some(text) => file(&text.to_string()),
            None => CatalogContent::Deleted { digest: fleet_core::Digest::of(b"x") },
        };
        let time = CatalogTime { at: Timestamp(NOON.0 + at), count };
        let stamp = CatalogStamp { version, time, node: node(who) };
        (CatalogKey::Workflow(name(key)), CatalogEntry { stamp, number, content, signed_by: SignedBy::Nobody })
    })
}

/// What a member does in a history.
#[derive(Clone, Debug)]
enum Step {
    Deploy(usize, u8),
    Delete(usize, u8),
    /// A run between two that may break off after some questions.
    Sync(usize, usize, usize),
    /// What one has now is told to another, now and perhaps again much later.
    Tell(usize, usize),
    LookAfter(usize),
    /// All that was told so far arrives once more.
    Repeat(usize),
    SetClock(usize, i64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0_usize..4;
    prop::strategy::Union::new_weighted(vec![
        (3, (who.clone(), 0_u8..4).prop_map(|(who, key)| Step::Deploy(who, key)).boxed()),
        (3, (who.clone(), 0_u8..4).prop_map(|(who, key)| Step::Delete(who, key)).boxed()),
        (
            6,
            (who.clone(), who.clone(), prop::option::of(1_usize..4))
                .prop_map(|(one, other, cut)| Step::Sync(one, other, cut.unwrap_or(usize::MAX)))
                .boxed(),
        ),
        (4, (who.clone(), who.clone()).prop_map(|(one, other)| Step::Tell(one, other)).boxed()),
        (3, who.clone().prop_map(Step::LookAfter).boxed()),
        (1, who.clone().prop_map(Step::Repeat).boxed()),
        (1, (who, -500_000_i64..500_000).prop_map(|(who, ms)| Step::SetClock(who, ms)).boxed()),
    ])
}

proptest! {
    #[test]
    fn rows_come_to_the_same_in_any_order_any_grouping_and_any_number(
        rows in prop::collection::vec(entry(), 0..12),
        turned in 0_usize..12,
        cut in 0_usize..12,
    ) {
        let mut straight = Copy::new(9);
        straight.merge(rows.clone());
        let mut other = Copy::new(8);
        let mut order = rows.to_vec();
        let length = order.len().max(1);
        order.rotate_left(turned % length);
        order.reverse();
        let (first, second) = order.split_at(cut.min(order.len()));
        other.merge(second.to_vec());
        other.merge(first.to_vec());
        other.merge(second.to_vec());
        prop_assert_eq!(&straight.entries, &other.entries);
        prop_assert_eq!(straight.replica.sums(), other.replica.sums());
        // What a third one hears of both, in pieces, is what it hears of either.
        let mut third = Copy::new(7);
        third.merge(other.rows());
        third.merge(straight.rows());
        prop_assert_eq!(&third.entries, &straight.entries);
    }

    #[test]
    fn copies_agree_after_any_history_and_what_was_deleted_stays_away(steps in prop::collection::vec(step(), 0..60)) {
        let mut copies: Vec<Copy> = (1..=4).map(Copy::new).collect();
        let members: BTreeSet<NodeId> = (1..=4).map(node).collect();
        let mut told: Vec<Vec<Row>> = Vec::new();
        for step in steps {
            match step {
                // A version never changes, so a text is one of its key and member.
                Step::Deploy(who, key) => drop(copies[who].deploy(key, &format!("{key} of {who}"))),
                Step::Delete(who, key) => drop(copies[who].delete(key)),
                Step::Sync(one, other, questions) if one != other => {
                    let mut mine = copies[one].clone();
                    sync(&mut mine, &mut copies[other], 600, questions);
                    copies[one] = mine;
                }
                Step::Tell(one, other) => {
                    let rows = copies[one].rows();
                    copies[other].merge(rows.clone());
                    told.push(rows);
                }
                Step::LookAfter(who) => copies[who].look_after(&members),
                Step::Repeat(who) => told.clone().into_iter().for_each(|rows| drop(copies[who].merge(rows))),
                Step::SetClock(who, ms) => copies[who].clock = Timestamp(NOON.0.saturating_add_signed(ms)),
                Step::Sync(..) => {}
            }
        }
        copies.iter_mut().for_each(|copy| copy.clock = Timestamp(NOON.0 + 3_600_000));
        settle(&mut copies, &members);
        for copy in &copies[1..] {
            prop_assert_eq!(&copy.entries, &copies[0].entries, "copies do not agree");
        }
        prop_assert_eq!(copies[0].replica.deletions_waiting(), 0, "all members know all deletions");
        // What was deleted with everybody's knowledge does not come back, whatever still travels.
        for key in 0..4 {
            let _ = copies[0].delete(key);
        }
        told.push(copies[3].rows());
        settle(&mut copies, &members);
        prop_assert_eq!(copies[0].replica.deletions_waiting(), 0);
        for copy in &mut copies {
            told.clone().into_iter().for_each(|rows| drop(copy.merge(rows)));
            prop_assert_eq!(copy.files().len(), 0, "a deleted workflow came back");
        }
        settle(&mut copies, &members);
        for copy in &copies {
            prop_assert_eq!(copy.files().len(), 0);
            prop_assert_eq!(&copy.entries, &copies[0].entries);
        }
    }
}

#[test]
fn a_member_that_was_away_for_a_deletion_drops_what_was_deleted_and_gives_what_it_wrote() {
    let mut copies: Vec<Copy> = (1..=3).map(Copy::new).collect();
    let both: BTreeSet<NodeId> = [node(1), node(2)].into();
    copies[0].deploy(1, "old").unwrap();
    settle(&mut copies, &both);
    let mut away = copies.pop().unwrap();
    // It is no member, so nobody waits for it; it must not bring back what it still has.
    let acknowledgement = CatalogKey::Acknowledgement(node(3));
    for copy in &mut copies {
        copy.apply(fleet_store::CatalogChange { remove: vec![acknowledgement.clone()], ..Default::default() });
    }
    copies[1].delete(1).unwrap();
    settle(&mut copies, &both);
    assert_eq!(copies[0].replica.deletions_waiting(), 0, "it is forgotten by both members");
    away.deploy(2, "written while away").unwrap();
    copies.push(away);
    settle(&mut copies, &[node(1), node(2), node(3)].into());
    for copy in &copies {
        let files: Vec<_> = copy.files().into_keys().collect();
        assert_eq!(files, [CatalogKey::Workflow(name(2))]);
    }
    // A name that was deleted and forgotten can be used again, and comes after what was deleted.
    copies[2].deploy(1, "new").unwrap();
    settle(&mut copies, &[node(1), node(2), node(3)].into());
    assert_eq!(copies[0].files().len(), 2);
}

#[test]
fn a_deletion_waits_for_a_member_that_is_away() {
    let mut copies: Vec<Copy> = (1..=3).map(Copy::new).collect();
    let all: BTreeSet<NodeId> = (1..=3).map(node).collect();
    copies[0].deploy(1, "x").unwrap();
    settle(&mut copies, &all);
    let away = copies.pop().unwrap();
    copies[0].delete(1).unwrap();
    settle(&mut copies, &all);
    assert_eq!(copies[1].replica.deletions_waiting(), 1);
    copies.push(away);
    settle(&mut copies, &all);
    assert!(copies.iter().all(|copy| copy.replica.deletions_waiting() == 0 && copy.files().is_empty()));
}

#[test]
fn a_wrong_clock_decides_only_between_writes_that_did_not_know_of_each_other() {
    let (mut fast, mut right) = (Copy::new(1), Copy::new(2));
    fast.clock = Timestamp(NOON.0 + 500_000);
    fast.deploy(1, "fast").unwrap();
    right.deploy(1, "right").unwrap();
    let merge = right.merge(fast.rows());
    assert_eq!(merge.conflicts, [name(1)], "the lost one is told of");
    assert_eq!(right.files(), fast.files(), "they did not know of each other: the clock decides");
    right.delete(1).unwrap();
    fast.merge(right.rows());
    assert!(fast.files().is_empty(), "the deletion knew of it, and its clock is behind");
}

#[test]
fn what_is_stamped_too_far_ahead_waits_for_its_time() {
    let (mut fast, mut right) = (Copy::new(1), Copy::new(2));
    let ahead = u64::try_from(CATALOG_CLOCK_AHEAD_MAX.as_millis()).unwrap();
    fast.clock = Timestamp(NOON.0 + ahead + 1);
    fast.deploy(1, "x").unwrap();
    let merge = right.merge(fast.rows());
    assert_eq!((merge.held_back, merge.not_taken.len(), right.files().len()), (1, 1, 0));
    let cost = sync(&mut right, &mut fast, 4_096, 100);
    assert!(right.files().is_empty());
    assert!(cost.bytes < 500, "what waits is not sent again: {cost:?}");
    let cost = sync(&mut fast, &mut right, 4_096, 100);
    assert!(right.files().is_empty() && cost.bytes < 500, "{cost:?}");
    right.clock = Timestamp(NOON.0 + 1);
    sync(&mut right, &mut fast, 4_096, 100);
    assert_eq!(right.files().len(), 1, "its time has come");
    // Whose clock is put right mends by deploying again what it wrote before.
    let mut another = Copy::new(3);
    fast.clock = Timestamp(NOON.0 - 10);
    fast.deploy(1, "x").unwrap();
    another.merge(fast.rows());
    assert_eq!(another.files().len(), 1);
    right.merge(fast.rows());
    assert_eq!(right.entries, fast.entries, "what was mended comes after what was wrong, though its time is before");
}

#[test]
fn a_version_never_changes_not_even_after_it_was_deleted() {
    let mut copy = Copy::new(1);
    copy.deploy(1, "x").unwrap();
    assert_eq!((copy.deploy(1, "x"), copy.deploy(1, "y")), (Ok(()), Err(ErrorKind::Conflict)));
    copy.delete(1).unwrap();
    assert_eq!((copy.delete(1), copy.delete(2)), (Ok(()), Err(ErrorKind::NotFound)));
    assert_eq!((copy.deploy(1, "y"), copy.deploy(1, "x")), (Err(ErrorKind::Conflict), Ok(())));
    assert_eq!(copy.files().len(), 1);
}

#[test]
fn a_full_catalog_takes_no_more_but_what_others_have() {
    let mut copy = Copy::new(1);
    let other = Copy::new(2);
    let filler = (0..CATALOG_ENTRIES_MAX).map(|number| {
        let key = CatalogKey::RevokedSerial(SiteName::default(), number.to_string());
        let mut row = other.replica.row(key, CatalogContent::Revocation, SignedBy::Nobody, NOON);
        row.1.number = number as u64 + 1;
        row
    });
    copy.merge(filler.collect());
    assert_eq!(copy.deploy(1, "x"), Err(ErrorKind::ResourceExhausted));
    let mut late = Copy::new(3);
    late.deploy(1, "x").unwrap();
    assert_eq!(copy.merge(late.rows()).no_room, 0, "others took it in good faith");
}

#[test]
fn a_full_catalog_takes_revocations_all_the_same() {
    let mut copy = Copy::new(1);
    let full = CATALOG_ENTRIES_MAX + CATALOG_ENTRIES_MAX / 8;
    let filler = (0..full).map(|number| {
        let content = CatalogContent::Deleted { digest: fleet_core::Digest::of(b"x") };
        let workflow = WorkflowName { name: number.to_string(), ..name(0) };
        let mut row = copy.replica.row(CatalogKey::Workflow(workflow), content, SignedBy::Nobody, NOON);
        (row.1.stamp.node, row.1.number) = (node(2), number as u64 + 1);
        row
    });
    let filler = filler.collect();
    assert_eq!(copy.merge(filler).no_room, 0);
    let mut other = Copy::new(3);
    other.deploy(1, "x").unwrap();
    let key = CatalogKey::RevokedSerial(SiteName::default(), "0a".to_owned());
    let change = other.replica.plan_revoke(vec![(key.clone(), SignedBy::Nobody)], NOON);
    other.apply(change);
    assert_eq!(copy.merge(other.rows()).no_room, 1, "the workflow");
    assert!(copy.entries.contains_key(&key));
}

#[test]
fn no_message_uses_the_counters_up() {
    let (mut copy, mut other) = (Copy::new(1), Copy::new(2));
    other.deploy(1, "x").unwrap();
    let (key, good) = other.rows().remove(0);
    let stamp = |version, who| CatalogStamp { version, node: node(who), ..good.stamp };
    let far = NOON.0 + u64::try_from(CATALOG_CLOCK_AHEAD_MAX.as_millis()).unwrap() + 1;
    let with = |stamp, number| (key.clone(), CatalogEntry { stamp, number, ..good.clone() });
    let said = CatalogContent::Acknowledgement([(node(2), u64::MAX)].into());
    let poison = vec![
        with(stamp(1, 1), u64::MAX),
        with(stamp(1, 2), far),
        with(stamp(u64::MAX, 2), 1),
        with(stamp(far, 2), 1),
        (
            CatalogKey::Acknowledgement(node(1)),
            CatalogEntry { content: said, stamp: stamp(1, 1), number: 0, ..good.clone() },
        ),
    ];
    let count = poison.len();
    let merge = copy.merge(poison);
    assert_eq!((merge.unbelievable, merge.not_taken.len(), copy.entries.len()), (count, count, 0));
    let lies = (1..=9).map(|number| (node(number), u64::MAX)).collect();
    assert!(copy.replica.plan_adopt(&lies, u64::MAX, NOON).is_empty(), "nothing of it is believed");
    assert!(copy.replica.plan_adopt(&lies, far, NOON).is_empty());
    let many = (0..20_000_u32).map(|number| {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        (NodeId::from_bytes(bytes), 1)
    });
    let change = copy.replica.plan_adopt(&many.collect(), 0, NOON);
    copy.apply(change);
    assert_eq!(copy.replica.seen().len(), row::NODES_MAX - 1, "with a place for its own");
    // All goes on as ever: it writes, and takes what the other wrote.
    assert_eq!(copy.merge(other.rows()).not_taken, []);
    copy.deploy(2, "y").unwrap();
    assert_eq!(copy.entries[&CatalogKey::Workflow(name(2))].number, 1);
    assert_eq!(copy.replica.seen().len(), row::NODES_MAX);
    assert_eq!(copy.files().len(), 2);
}

#[test]
fn counters_at_their_end_stay_there() {
    let facts = fleet_store::record::CatalogFacts { written: u64::MAX, seen: Default::default(), outlived: u64::MAX };
    let mut copy = Copy { replica: Replica::new(node(1), facts), ..Copy::new(1) };
    copy.deploy(1, "x").unwrap();
    copy.delete(1).unwrap();
    let key = CatalogKey::RevokedSerial(SiteName::default(), "0a".to_owned());
    let change = copy.replica.plan_revoke(vec![(key, SignedBy::Nobody)], NOON);
    copy.apply(change);
    assert!(copy.entries.values().all(|entry| entry.number == u64::MAX && entry.stamp.version == u64::MAX));
}

/// A definition that is about a kibibyte deflated: half of its text cannot be foreseen.
fn definition(number: usize) -> String {
    let mut text = String::with_capacity(2_048);
    let mut state = number as u64 + 1;
    while text.len() < 1_230 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(char::from(b' ' + u8::try_from((state >> 33) % 90).unwrap()));
    }
    text
}

#[test]
fn ten_thousand_definitions_cross_a_slow_link_with_little_beside_them_and_a_run_that_broke_off_is_taken_up() {
    const COUNT: usize = 10_000;
    let (mut plant, mut office) = (Copy::new(1), Copy::new(2));
    let mut deflated = 0;
    for number in 0..COUNT {
        let content = file(&definition(number));
        let CatalogContent::Workflow { deflated: bytes, .. } = &content else { unreachable!() };
        deflated += bytes.as_slice().len();
        let workflow =
            WorkflowName { namespace: "shop".to_owned(), name: format!("flow-{number}"), version: "1.0.0".to_owned() };
        let change = plant.replica.plan_deploy(vec![(workflow, content)], NOON).unwrap();
        plant.apply(change);
    }
    assert!((1_024..1_400).contains(&(deflated / COUNT)), "{} bytes each", deflated / COUNT);
    let frame = fleet_core::limits::CATALOG_FRAME_BYTES;
    let first = sync(&mut office, &mut plant, frame, 200);
    assert!(office.entries.len() > 1_000 && office.entries.len() < COUNT);
    let second = sync(&mut office, &mut plant, frame, usize::MAX);
    assert_eq!(office.entries, plant.entries);
    let (bytes, questions) = (first.bytes + second.bytes, first.questions + second.questions);
    let beside = bytes - deflated;
    // 256 kbit/s are 32,000 bytes a second; each question waits for one round trip of 100 ms.
    let seconds = bytes as f64 / 32_000.0 + questions as f64 * 0.1;
    // Lost packets, five of a hundred: each is sent again, and keeps the message waiting until the sender notices. And the
    // rests between questions, an eighth of the time that each took.
    let lost = bytes as f64 / 1_460.0 * 0.05;
    let with_losses = (seconds + lost * (0.3 + 1_460.0 / 32_000.0)) * 1.12;
    println!(
        "{COUNT} definitions, {} bytes each deflated: {bytes} bytes in {questions} questions, {} beside each definition, \
         largest message {}, {seconds:.0} s at 256 kbit/s and 100 ms, {with_losses:.0} s with rests and 5 % loss",
        deflated / COUNT,
        beside / COUNT,
        first.largest.max(second.largest),
    );
    assert!(beside < COUNT * 200, "{beside} bytes beside the definitions");
    assert!(first.largest.max(second.largest) <= frame + 4_096);
    assert!(with_losses < 900.0, "{with_losses} s is longer than fifteen minutes");

    // Where one differs, that costs little.
    plant.deploy(1, "one more").unwrap();
    let third = sync(&mut office, &mut plant, frame, usize::MAX);
    assert_eq!(office.entries, plant.entries);
    assert!(third.bytes < 16 * 1024 && third.questions <= 4, "{third:?}");
}

#[test]
fn a_deletion_is_kept_until_whatever_still_travels_of_its_key_is_known_here() {
    let [mut origin, mut deleter, mut keeper] = [1, 2, 3].map(Copy::new);
    let members: BTreeSet<NodeId> = (1..=3).map(node).collect();
    origin.deploy(1, "x").unwrap();
    let travelling = origin.rows();
    deleter.merge(travelling.clone());
    keeper.merge(travelling.clone());
    deleter.delete(1).unwrap();
    keeper.merge(deleter.rows());
    sync(&mut keeper, &mut deleter, 4_096, usize::MAX);
    sync(&mut origin, &mut deleter, 4_096, usize::MAX);
    for copy in [&mut origin, &mut deleter, &mut keeper] {
        copy.look_after(&members);
    }
    keeper.merge(deleter.rows());
    keeper.merge(origin.rows());
    keeper.look_after(&members);
    assert_eq!(keeper.replica.deletions_waiting(), 1, "all acknowledged it, and it has not seen the origin's write");
    let mut copies = [origin, deleter, keeper];
    settle(&mut copies, &members);
    for mut copy in copies {
        assert_eq!(copy.replica.deletions_waiting(), 0);
        copy.merge(travelling.clone());
        assert!(copy.files().is_empty(), "it came back");
    }
}

#[test]
fn steps_raise_counters_no_further_than_the_clock_and_who_wrote_honestly_goes_on() {
    let (mut copy, mut other) = (Copy::new(1), Copy::new(2));
    other.deploy(1, "x").unwrap();
    let (key, good) = other.rows().remove(0);
    let end = NOON.0 + u64::try_from(CATALOG_CLOCK_AHEAD_MAX.as_millis()).unwrap();
    let mut version = good.stamp.version;
    for step in 1..=100_u64 {
        // As far as is believed, again and again.
        let lie = [version.saturating_add(1 << 40), end, end + 1].into_iter().rev();
        for version in lie {
            let stamp = CatalogStamp { version, ..good.stamp };
            copy.merge(vec![(key.clone(), CatalogEntry { stamp, number: step + 1, ..good.clone() })]);
            let seen = [(node(2), version), (node(1), version)].into();
            let change = copy.replica.plan_adopt(&seen, version, copy.clock);
            copy.apply(change);
        }
        version = copy.entries[&key].stamp.version;
    }
    // A little beyond the clock at each step, so that clocks may be behind: a step for each message.
    assert!(version <= end + 400 * (1 << 20), "{version}");
    assert!(copy.replica.outlived() <= end + 400 * (1 << 20));
    // A counter that a liar brought to where the clock is goes on.
    copy.deploy(2, "mine").unwrap();
    assert!(copy.entries[&CatalogKey::Workflow(name(2))].number < u64::MAX / 2);
    copy.delete(1).unwrap();
    assert!(copy.files().len() == 1);
}

#[test]
fn a_node_whose_clock_is_decades_behind_takes_the_next_numbers() {
    let (mut late, mut other) = (Copy::new(1), Copy::new(2));
    late.clock = Timestamp(1_000);
    other.clock = Timestamp(2_000);
    for number in 1..=9 {
        other.deploy(number, "x").unwrap();
    }
    assert_eq!(late.merge(other.rows()).not_taken, []);
}

#[test]
fn a_node_whose_disk_was_put_back_goes_on_after_the_numbers_that_others_have_seen() {
    let mut copies: Vec<Copy> = (1..=3).map(Copy::new).collect();
    let all: BTreeSet<NodeId> = (1..=3).map(node).collect();
    copies[0].deploy(1, "first").unwrap();
    settle(&mut copies, &all);
    let before = copies[0].clone();
    for number in 2..=4 {
        copies[0].deploy(number, "later").unwrap();
    }
    settle(&mut copies, &all);
    copies[0] = before;
    // It is asked by another one, whose copy is another: from then on it counts on from what that one has seen.
    let question = compare(&copies[1].replica);
    copies[0].answer(question);
    copies[0].deploy(5, "after").unwrap();
    settle(&mut copies, &all);
    for copy in &copies {
        assert_eq!(copy.files().len(), 5, "what it wrote before and after is everywhere");
        assert_eq!(copy.entries, copies[0].entries);
    }
}

#[test]
fn what_a_later_entry_took_the_place_of_is_kept_elsewhere_until_that_one_is_taken() {
    let [mut one, mut other, mut fast] = [1, 2, 3].map(Copy::new);
    one.deploy(1, "one").unwrap();
    other.merge(one.rows());
    // Another file as the same version, by a clock that is wrong: it wins, and must wait at whoever knows the time.
    fast.clock = Timestamp(NOON.0 + 1_000_000);
    fast.deploy(1, "fast").unwrap();
    one.clock = fast.clock;
    one.merge(fast.rows());
    assert_eq!(one.files(), fast.files());
    let told = one.merge(other.rows());
    assert_eq!((told.gone.len(), told.later_here.len()), (0, 1));
    sync(&mut other, &mut one, 4_096, usize::MAX);
    assert_eq!(other.files().len(), 1, "it has its file until it takes the other one");
    assert!(other.deploy(1, "third").is_err(), "and so the version is known there");
    other.clock = fast.clock;
    other.waiting.clear();
    sync(&mut other, &mut one, 4_096, usize::MAX);
    assert_eq!(other.entries, one.entries);
}

#[test]
fn what_is_said_in_the_name_of_a_node_is_put_right_by_it() {
    let mut copies: Vec<Copy> = (1..=3).map(Copy::new).collect();
    let all: BTreeSet<NodeId> = (1..=3).map(node).collect();
    copies[1].deploy(1, "x").unwrap();
    settle(&mut copies, &all);
    // Somebody says that the third one has seen what nobody wrote yet: no deletion would ever be forgotten.
    let key = CatalogKey::Acknowledgement(node(3));
    let mut entry = copies[0].entries[&key].clone();
    entry.stamp.version += 1;
    entry.content = CatalogContent::Acknowledgement([(node(1), 500), (node(2), 500), (node(3), 500)].into());
    copies[0].merge(vec![(key, entry)]);
    copies[1].delete(1).unwrap();
    settle(&mut copies, &all);
    for copy in &copies {
        assert_eq!((copy.replica.deletions_waiting(), copy.files().len()), (0, 0));
    }
}

#[test]
fn a_node_whose_disk_was_put_back_lets_go_of_what_it_lost_and_what_it_deletes_is_forgotten() {
    let mut copies: Vec<Copy> = (1..=3).map(Copy::new).collect();
    let all: BTreeSet<NodeId> = (1..=3).map(node).collect();
    copies[0].deploy(1, "first").unwrap();
    settle(&mut copies, &all);
    let before = copies[0].clone();
    copies[0].deploy(2, "lost").unwrap();
    copies[0].deploy(3, "told").unwrap();
    let told = copies[0].rows().into_iter().filter(|(key, _)| *key == CatalogKey::Workflow(name(3))).collect();
    copies[1].merge(told);
    copies[0] = before;
    settle(&mut copies, &all);
    copies[0].delete(1).unwrap();
    settle(&mut copies, &all);
    for copy in &copies {
        assert_eq!((copy.replica.deletions_waiting(), copy.files().len()), (0, 1));
        assert_eq!(copy.replica.seen()[&node(1)], 4);
    }
}

#[test]
fn what_was_deleted_of_a_node_whose_disk_was_put_back_stays_away() {
    let mut copies: Vec<Copy> = (1..=3).map(Copy::new).collect();
    let all: BTreeSet<NodeId> = (1..=3).map(node).collect();
    let empty = copies[0].clone();
    copies[0].deploy(1, "x").unwrap();
    let travelling = copies[0].rows();
    copies[1].merge(travelling.clone());
    copies[0] = empty;
    settle(&mut copies, &all);
    copies[1].delete(1).unwrap();
    settle(&mut copies, &all);
    for copy in &mut copies {
        assert_eq!(copy.replica.deletions_waiting(), 0);
        copy.merge(travelling.clone());
        assert!(copy.files().is_empty(), "it came back");
    }
}

#[test]
fn an_acknowledgement_names_own_writes_that_an_earlier_state_of_the_disk_does_not_know() {
    let (mut put_back, mut was) = (Copy::new(1), Copy::new(1));
    was.deploy(1, "x").unwrap();
    put_back.merge(was.rows());
    put_back.look_after(&[node(1), node(2)].into());
    let content = &put_back.entries[&CatalogKey::Acknowledgement(node(1))].content;
    let CatalogContent::Acknowledgement(said) = content else { panic!("{content:?}") };
    assert_eq!(said[&node(1)], 1);
}

#[test]
fn what_a_removed_node_deleted_is_forgotten_though_nobody_has_all_that_it_wrote() {
    let mut copies: Vec<Copy> = (1..=3).map(Copy::new).collect();
    copies[2].deploy(1, "x").unwrap();
    settle(&mut copies, &(1..=3).map(node).collect());
    let mut removed = copies.pop().unwrap();
    removed.deploy(2, "never told").unwrap();
    removed.delete(1).unwrap();
    let told = removed.rows().into_iter().filter(|(key, _)| *key == CatalogKey::Workflow(name(1))).collect();
    copies[0].merge(told);
    let key = CatalogKey::RevokedNode(SiteName::default(), node(3));
    let change = copies[0].replica.plan_revoke(vec![(key, SignedBy::Nobody)], NOON);
    copies[0].apply(change);
    settle(&mut copies, &[node(1), node(2)].into());
    for copy in &copies {
        assert_eq!((copy.replica.deletions_waiting(), copy.files().len()), (0, 0));
    }
}

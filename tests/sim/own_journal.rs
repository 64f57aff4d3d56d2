//! What a robot writes on its own disk of jobs that it may finish cut off, and how it brings that to the group afterwards.

use std::collections::BTreeMap;

use fleet_core::BootInstant;
use fleet_node::link::WorkUp;
use fleet_node::session::Pair;
use fleet_replication::command::{Next, Records};
use fleet_store::record::JournalRecord;

use crate::consensus::DiskRecord;
use crate::message::{Fact, Out, Situation, Step};

/// Most records that are delivered at once.
const DELIVERED_MAX: usize = 3;

/// What is written down of a job cut off.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OwnRecord {
    /// Records, the first at this position.
    Written(Pair, u32, Vec<JournalRecord>),
    /// The group has them all.
    Forgotten(Pair),
    /// The group refused them: they are evidence.
    Refused(Pair),
}

/// How far a journal is delivered whose job does not run here any more.
#[derive(Clone, Copy, Debug, Default)]
struct Delivery {
    from: u32,
    sent_at: Option<BootInstant>,
}

/// The journals of one robot.
#[derive(Debug, Default)]
pub(crate) struct OwnJournals {
    records: BTreeMap<Pair, BTreeMap<u32, JournalRecord>>,
    kept: BTreeMap<Pair, Delivery>,
}

impl OwnJournals {
    /// What a process that starts finds on its disk: all of it is to be delivered.
    pub(crate) fn open(disk: &[DiskRecord]) -> Self {
        let mut journals = Self::default();
        for record in disk {
            match record {
                DiskRecord::Own(OwnRecord::Written(pair, from, records)) => journals.take(*pair, *from, records),
                DiskRecord::Own(OwnRecord::Forgotten(pair) | OwnRecord::Refused(pair)) => {
                    journals.records.remove(pair);
                }
                _ => {}
            }
        }
        journals.kept = journals.records.keys().map(|pair| (*pair, Delivery::default())).collect();
        journals
    }

    fn take(&mut self, pair: Pair, from: u32, records: &[JournalRecord]) {
        self.records.entry(pair).or_default().extend((from..).zip(records.iter().cloned()));
    }

    /// Writes `records` down; done when they are synced, which is at once. Whether there was room.
    pub(crate) fn write(&mut self, step: &mut Step<'_>, pair: Pair, from: u32, records: Vec<JournalRecord>) -> bool {
        self.take(pair, from, &records);
        let is_written = write(step, OwnRecord::Written(pair, from, records.clone()));
        if is_written {
            step.fact(Fact::Seen(Situation::FinishedCutOff));
            step.fact(Fact::Secured { job: pair.job, records });
        }
        is_written
    }

    /// Whether the journal of `pair` is still to be delivered.
    pub(crate) fn is_kept(&self, pair: Pair) -> bool {
        self.kept.contains_key(&pair)
    }

    /// The job of `pair` does not run here any more, and something of it may be written down.
    pub(crate) fn keep(&mut self, pair: Pair) {
        self.kept.entry(pair).or_default();
    }

    /// The group has the records of `pair` before position `from`.
    pub(crate) fn committed(&mut self, pair: Pair, from: u32) {
        if let Some(delivery) = self.kept.get_mut(&pair) {
            *delivery = Delivery { from: delivery.from.max(from), sent_at: None };
        }
    }

    /// The group has everything of `pair`.
    pub(crate) fn forget(&mut self, step: &mut Step<'_>, pair: Pair) {
        self.kept.remove(&pair);
        if self.records.remove(&pair).is_some() {
            write(step, OwnRecord::Forgotten(pair));
        }
    }

    /// The group has given the job of `pair` to another robot.
    pub(crate) fn refused(&mut self, step: &mut Step<'_>, pair: Pair) {
        if self.kept.remove(&pair).is_some() && self.records.remove(&pair).is_some() {
            step.fact(Fact::Seen(Situation::OwnJournalRefused));
            write(step, OwnRecord::Refused(pair));
        }
    }

    /// What is to go up now.
    pub(crate) fn due(&mut self, step: &mut Step<'_>, session: fleet_core::SessionId) -> Vec<WorkUp> {
        let (mut due, mut delivered) = (Vec::new(), Vec::new());
        for (pair, delivery) in &mut self.kept {
            if delivery.sent_at.is_some_and(|at| step.now.saturating_since(at) < step.timing.robot_lease) {
                continue;
            }
            delivery.sent_at = Some(step.now);
            let rest = self.records.get(pair).map(|records| records.range(delivery.from..));
            let rest: Vec<(u32, JournalRecord)> =
                rest.into_iter().flatten().take(DELIVERED_MAX).map(|(at, record)| (*at, record.clone())).collect();
            let Some((from, _)) = rest.first() else {
                delivered.push(*pair);
                continue;
            };
            let (from, records) = (*from, rest.into_iter().map(|(_, record)| record).collect());
            let records = Records { job: pair.job, fence: pair.fence, from, records, next: Next::Continue };
            due.push(WorkUp::Records { session, records: Box::new(records) });
        }
        delivered.into_iter().for_each(|pair| self.forget(step, pair));
        due
    }
}

fn write(step: &mut Step<'_>, record: OwnRecord) -> bool {
    let is_written = step.disk.write(DiskRecord::Own(record)).is_ok();
    if is_written {
        step.disk.sync();
    } else {
        step.out.push(Out::Fail("the disk is full"));
    }
    is_written
}

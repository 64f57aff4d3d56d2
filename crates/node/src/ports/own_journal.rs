//! The robot's own journal as a port: what it writes down by itself of jobs that run on while it is cut off.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use fleet_core::{Error, Timestamp};
use fleet_store::record::JournalRecord;
use fleet_store::{Evidence, OwnJournal as Head, Store};

use crate::session::Pair;

/// Records of a robot's own journal that are read at a time.
const RECORDS_PER_READ: usize = 256;

/// Where a robot writes down what its group has not committed, for jobs that may be finished cut off.
pub trait OwnJournal: Send + Sync + 'static {
    /// Writes down `records`, the first at position `from`. Answers when they are on the disk.
    fn write(
        &self,
        pair: Pair,
        within: Duration,
        from: u32,
        records: Vec<JournalRecord>,
    ) -> BoxFuture<'static, Result<(), Error>>;
    /// What is kept and may still be delivered.
    fn kept(&self) -> BoxFuture<'static, Result<Vec<Pair>, Error>>;
    /// A bounded number of the records of `pair` from position `from` on, without a gap; and the position of the first.
    fn read(&self, pair: Pair, from: u32) -> BoxFuture<'static, Result<(u32, Vec<JournalRecord>), Error>>;
    /// Forgets the journal of `pair`: the group has it.
    fn forget(&self, pair: Pair) -> BoxFuture<'static, Result<(), Error>>;
    /// Keeps the journal of `pair`, which the group refused at `at`, as evidence. Earlier ones may give way.
    fn refuse(&self, pair: Pair, at: Timestamp) -> BoxFuture<'static, Result<Evidence, Error>>;
}

impl OwnJournal for Store {
    fn write(
        &self,
        Pair { job, fence }: Pair,
        within: Duration,
        from: u32,
        records: Vec<JournalRecord>,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let finish_within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let head = Head { job, fence, finish_within_ms, refused_at: None };
        let pending = self.write_own_journal(head, from, records);
        async move { pending.await.map_err(failed("write the robot's own journal")) }.boxed()
    }

    fn kept(&self) -> BoxFuture<'static, Result<Vec<Pair>, Error>> {
        let read = self.own_journals().map_err(failed("read the robot's own journals"));
        let kept = read.map(|heads| {
            let kept = heads.into_iter().filter(|head| head.refused_at.is_none());
            kept.map(|Head { job, fence, .. }| Pair { job, fence }).collect()
        });
        async move { kept }.boxed()
    }

    fn read(
        &self,
        Pair { job, fence }: Pair,
        from: u32,
    ) -> BoxFuture<'static, Result<(u32, Vec<JournalRecord>), Error>> {
        let read = self.own_records(job, fence, from, RECORDS_PER_READ).map_err(failed("read the robot's own journal"));
        let found = read.map(|rows| {
            let first = rows.first().map_or(from, |(position, _)| *position);
            let follows = |((position, _), expected): &(&(u32, JournalRecord), u32)| position == expected;
            let rows: Vec<_> =
                rows.iter().zip(first..).take_while(follows).map(|((_, record), _)| record.clone()).collect();
            (first, rows)
        });
        async move { found }.boxed()
    }

    fn forget(&self, Pair { job, fence }: Pair) -> BoxFuture<'static, Result<(), Error>> {
        let pending = self.forget_own_journal(job, fence);
        async move { pending.await.map_err(failed("forget a robot's own journal")) }.boxed()
    }

    fn refuse(&self, Pair { job, fence }: Pair, at: Timestamp) -> BoxFuture<'static, Result<Evidence, Error>> {
        let pending = self.refuse_own_journal(job, fence, at);
        async move { pending.await.map_err(failed("keep a refused journal")) }.boxed()
    }
}

fn failed(operation: &'static str) -> impl FnOnce(fleet_store::Error) -> Error {
    move |error| Error::new(error.kind(), operation).with_source(error)
}

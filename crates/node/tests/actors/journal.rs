//! A robot's own journal for paused time.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use fleet_core::{Error, Timestamp};
use fleet_node::ports::OwnJournal;
use fleet_node::session::Pair;
use fleet_store::record::JournalRecord;
use fleet_store::{Evidence, Store};

/// A robot's own journal whose writes take no time of the paused clock.
pub(crate) struct TestJournal(pub(crate) Store);

impl OwnJournal for TestJournal {
    fn write(
        &self,
        pair: Pair,
        within: Duration,
        from: u32,
        records: Vec<JournalRecord>,
    ) -> BoxFuture<'static, Result<(), Error>> {
        blocking(OwnJournal::write(&self.0, pair, within, from, records))
    }

    fn kept(&self) -> BoxFuture<'static, Result<Vec<Pair>, Error>> {
        OwnJournal::kept(&self.0)
    }

    fn read(&self, pair: Pair, from: u32) -> BoxFuture<'static, Result<(u32, Vec<JournalRecord>), Error>> {
        OwnJournal::read(&self.0, pair, from)
    }

    fn forget(&self, pair: Pair) -> BoxFuture<'static, Result<(), Error>> {
        blocking(OwnJournal::forget(&self.0, pair))
    }

    fn refuse(&self, pair: Pair, at: Timestamp) -> BoxFuture<'static, Result<Evidence, Error>> {
        blocking(OwnJournal::refuse(&self.0, pair, at))
    }
}

/// On a blocking thread, because paused time passes while a task waits for any other.
fn blocking<T: Send + 'static>(work: BoxFuture<'static, Result<T, Error>>) -> BoxFuture<'static, Result<T, Error>> {
    let runtime = tokio::runtime::Handle::current();
    async move { tokio::task::spawn_blocking(move || runtime.block_on(work)).await.unwrap() }.boxed()
}

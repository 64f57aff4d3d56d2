//! The records of a job that are under way: what is sent again on every new link, until an answer covers it.

use fleet_replication::command::{Next, Records};

/// The batch under way, if there is one.
#[derive(Debug, Default)]
pub struct Unacknowledged {
    batch: Option<Box<Records>>,
}

impl Unacknowledged {
    /// `records` are sent. There is never more than one batch under way.
    pub fn sending(&mut self, records: &Records) {
        self.batch = Some(Box::new(records.clone()));
    }

    /// The group says that the journal has `journal_len` records, and whether the job has left its robot. What was sent on
    /// more than one link is answered more than once, so an answer may be to an earlier batch: it settles this one only if
    /// it covers it, and one by which the job leaves only if it says that the job has left.
    pub fn acknowledged(&mut self, journal_len: u32, is_over: bool) {
        self.batch.take_if(|batch| {
            let end = batch.from.saturating_add(u32::try_from(batch.records.len()).unwrap_or(u32::MAX));
            is_over || batch.next == Next::Continue && end <= journal_len
        });
    }

    /// What is to be sent again.
    pub fn batch(&self) -> Option<&Records> {
        self.batch.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{Fence, JobId};
    use fleet_store::record::{Content, JournalMark, JournalRecord};

    use super::*;

    fn batch(from: u32, count: usize, next: Next) -> Records {
        let record = JournalRecord { node: None, mark: JournalMark::Plain, event: Content::inline("{}") };
        let (job, fence) = (JobId::default(), Fence::default());
        Records { job, fence, from, records: vec![record; count], next }
    }

    fn is_settled(batch: &Records, journal_len: u32, is_over: bool) -> bool {
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.sending(batch);
        unacknowledged.acknowledged(journal_len, is_over);
        unacknowledged.batch().is_none()
    }

    #[test]
    fn a_second_answer_to_an_earlier_batch_settles_nothing() {
        let second = batch(1, 2, Next::Continue);
        assert!(!is_settled(&second, 1, false));
        assert!(!is_settled(&second, 2, false));
        assert!(is_settled(&second, 3, false));
    }

    #[test]
    fn a_batch_by_which_the_job_leaves_is_settled_only_once_it_has_left() {
        for last in [batch(1, 0, Next::HandBack), batch(1, 2, Next::Complete { output: Content::inline("1") })] {
            assert!(!is_settled(&last, 1, false), "an answer to the batch before it");
            assert!(is_settled(&last, 3, true));
        }
    }
}

//! What a guard decides: how long its child may run, how much it may write, and why it ends. Pure; the clock and the
//! child's fate come in.

use fleet_core::BootInstant;

use super::protocol::{Ending, Stream};

/// The course of one guarded child.
#[derive(Debug)]
pub(crate) struct Course {
    lease_end: BootInstant,
    output_bytes_max: usize,
    stdout_bytes: usize,
    stderr_bytes: usize,
    ending: Option<Ending>,
}

impl Course {
    /// A child that may run until `lease_end` and write `output_bytes_max` bytes to each stream.
    pub(crate) fn new(lease_end: BootInstant, output_bytes_max: usize) -> Self {
        Self { lease_end, output_bytes_max, stdout_bytes: 0, stderr_bytes: 0, ending: None }
    }

    /// When the lease ends, as known now.
    pub(crate) fn lease_end(&self) -> BootInstant {
        self.lease_end
    }

    /// Why the child ends, once that is decided. The first reason stays.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// The lease was renewed to `end`, seen at `now`. One that has run out stays so.
    pub(crate) fn renew(&mut self, end: BootInstant, now: BootInstant) {
        self.check_lease(now);
        self.lease_end = self.lease_end.max(end);
    }

    /// Ends the child if the lease has run out at `now`.
    pub(crate) fn check_lease(&mut self, now: BootInstant) {
        if now >= self.lease_end {
            self.end(Ending::LeaseEnded);
        }
    }

    /// Ends the child for `reason`, unless it ends already.
    pub(crate) fn end(&mut self, reason: Ending) {
        self.ending.get_or_insert(reason);
    }

    /// The child wrote `bytes` to `stream`: how many of them count. Past the limit the child ends, even if it has
    /// exited by itself meanwhile.
    pub(crate) fn output(&mut self, stream: Stream, bytes: usize) -> usize {
        let taken = match stream {
            Stream::Stdout => &mut self.stdout_bytes,
            Stream::Stderr => &mut self.stderr_bytes,
        };
        let counted = bytes.min(self.output_bytes_max - *taken);
        *taken += counted;
        if counted < bytes && !matches!(self.ending, Some(Ending::Asked | Ending::LeaseEnded | Ending::StarterGone)) {
            self.ending = Some(Ending::OutputLimit(stream));
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant(Duration::from_secs(seconds))
    }

    #[test]
    fn a_renewal_counts_only_before_the_end() {
        let mut course = Course::new(at(10), 1);
        course.renew(at(20), at(9));
        course.check_lease(at(19));
        assert_eq!(course.ending(), None);
        course.renew(at(15), at(19));
        assert_eq!(course.lease_end(), at(20), "an earlier end does not shorten it");
        course.renew(at(40), at(20));
        assert_eq!(course.ending(), Some(&Ending::LeaseEnded), "the renewal came too late");
    }

    #[test]
    fn the_first_reason_stays() {
        let mut course = Course::new(at(10), 1);
        course.end(Ending::Exited(0));
        course.check_lease(at(11));
        assert_eq!(course.ending(), Some(&Ending::Exited(0)));
    }

    #[test]
    fn output_is_cut_at_the_limit_and_ends_the_child() {
        let mut course = Course::new(at(10), 5);
        assert_eq!((course.output(Stream::Stdout, 5), course.output(Stream::Stderr, 3)), (5, 3));
        assert_eq!(course.ending(), None);
        course.end(Ending::Exited(0));
        assert_eq!(course.output(Stream::Stderr, 3), 2);
        assert_eq!(course.ending(), Some(&Ending::OutputLimit(Stream::Stderr)));
        let mut cancelled = Course::new(at(10), 5);
        cancelled.end(Ending::Asked);
        assert_eq!(cancelled.output(Stream::Stdout, 9), 5);
        assert_eq!(cancelled.ending(), Some(&Ending::Asked));
    }
}

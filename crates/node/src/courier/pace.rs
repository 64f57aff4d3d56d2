//! When the next letter goes to one other site, and where in what waits it begins. Pure.
//!
//! As long as a walk through what waits has not come to its end, [`LETTERS_MAX`] letters are under way, so that the next one
//! travels while the other site commits the last one; else, and after a failure, one, and what comes up meanwhile goes
//! together with the next.
//! After a failure, or an answer that took nothing, the courier rests: twice as long each time, up to a bound, and not as
//! long where the link has come back. It never gives up.

use std::time::Duration;

use fleet_core::BootInstant;

use super::walk::Walk;

/// Most letters under way to one site.
const LETTERS_MAX: u32 = 2;
/// The first rest.
const REST_MIN: Duration = Duration::from_millis(250);
/// Letters in a row of which only blobs were sent after which that counts as progress no more: with sixteen blobs each,
/// more than one letter can name.
const SENT_IN_A_ROW_MAX: u32 = 128;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(30);

/// What came of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// There was nothing to say.
    Nothing,
    /// Something was settled; there may be more.
    Progress,
    /// Nothing was settled, but blobs that the other site asked for were sent.
    Sent,
    /// It was answered, and nothing of it was taken: the other site is full, or lacks blobs.
    Later,
    /// There was no answer.
    Failed,
}

/// How it stands with one other site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    under_way: u32,
    has_news: bool,
    walk: Walk,
    /// Whether more waits behind `walk`.
    has_more: bool,
    failures: u32,
    sent_in_a_row: u32,
    rests_until: Option<BootInstant>,
}

impl Pace {
    /// There may be something to say.
    pub fn news(&mut self) {
        self.has_news = true;
    }

    /// A link to the site has come up: what failed before need not fail now.
    pub fn linked(&mut self) {
        self.failures = 0;
        self.rests_until = None;
    }

    /// Where a letter begins that goes now, if one does; it is under way then.
    pub fn begin(&mut self, now: BootInstant) -> Option<Walk> {
        if !self.wants() || self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        if !self.has_more {
            self.has_news = false;
            self.walk = Walk::default();
        }
        self.under_way += 1;
        Some(self.walk)
    }

    /// Whether a letter would go if nothing rested.
    fn wants(&self) -> bool {
        match self.under_way {
            0 => self.has_more || self.has_news,
            // A line that did not bring one letter through in time is not asked to carry two.
            letters => self.has_more && letters < LETTERS_MAX && self.failures == 0,
        }
    }

    /// When [`Self::begin`] is to be asked again, if nothing happens before.
    pub fn due(&self) -> Option<BootInstant> {
        self.rests_until.filter(|_| self.wants())
    }

    /// The letter that began last looked at what waits up to `walk`, and there may be more behind.
    pub fn composed(&mut self, walk: Walk, has_more: bool) {
        (self.walk, self.has_more) = (walk, has_more);
    }

    /// A letter came to its end. `jitter` is random, up to 1,000.
    pub fn ended(&mut self, now: BootInstant, exchanged: Exchanged, jitter: u32) {
        self.under_way = self.under_way.saturating_sub(1);
        self.sent_in_a_row = if exchanged == Exchanged::Sent { self.sent_in_a_row.saturating_add(1) } else { 0 };
        match exchanged {
            Exchanged::Nothing => self.linked(),
            Exchanged::Sent if self.sent_in_a_row > SENT_IN_A_ROW_MAX => self.rest(now, jitter),
            Exchanged::Progress | Exchanged::Sent => {
                self.linked();
                self.has_news = true;
            }
            Exchanged::Later => self.rest(now, jitter),
            Exchanged::Failed => {
                // What it said is said again first.
                self.has_more = false;
                self.rest(now, jitter);
            }
        }
    }

    fn rest(&mut self, now: BootInstant, jitter: u32) {
        self.has_news = true;
        if self.rests_until.is_some_and(|until| now < until) {
            // Another letter ended so a moment ago: that is one failure.
            return;
        }
        let rest = REST_MIN.saturating_mul(2_u32.saturating_pow(self.failures.min(16))).min(REST_MAX);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(now.saturating_add(rest / 2 + rest * jitter.min(1_000) / 2_000));
    }
}

#[cfg(test)]
mod tests {
    use fleet_store::record::Serial;

    use super::*;

    fn at(millis: u64) -> BootInstant {
        BootInstant(Duration::from_millis(millis))
    }

    fn up_to(number: u64) -> Walk {
        Walk { moves: Some(Serial { epoch: 1, number }), ..Walk::default() }
    }

    /// Begins a letter that takes all that waits.
    fn begins(pace: &mut Pace, now: BootInstant) -> bool {
        let begun = pace.begin(now).is_some();
        if begun {
            pace.composed(up_to(1), false);
        }
        begun
    }

    #[test]
    fn one_letter_is_under_way_and_news_of_meanwhile_go_with_the_next() {
        let mut pace = Pace::default();
        assert!(!begins(&mut pace, at(0)), "there is nothing to say");
        pace.news();
        assert!(begins(&mut pace, at(0)));
        pace.news();
        assert!(!begins(&mut pace, at(1)), "one is under way");
        pace.ended(at(2), Exchanged::Nothing, 0);
        assert_eq!(pace.begin(at(2)), Some(Walk::default()), "there were news meanwhile: from the first");
        pace.composed(up_to(1), false);
        pace.ended(at(3), Exchanged::Progress, 0);
        assert!(begins(&mut pace, at(3)), "there may be more");
        pace.ended(at(4), Exchanged::Nothing, 0);
        assert!(!begins(&mut pace, at(5)) && pace.due().is_none());
    }

    #[test]
    fn while_a_walk_goes_on_two_letters_are_under_way_each_behind_the_other() {
        let mut pace = Pace::default();
        pace.news();
        assert_eq!(pace.begin(at(0)), Some(Walk::default()));
        assert_eq!(pace.begin(at(0)), None, "nobody knows yet how far the first goes");
        pace.composed(up_to(5), true);
        assert_eq!(pace.begin(at(0)), Some(up_to(5)));
        pace.composed(up_to(9), true);
        assert_eq!(pace.begin(at(0)), None, "two are under way");
        pace.ended(at(1), Exchanged::Progress, 0);
        assert_eq!(pace.begin(at(1)), Some(up_to(9)));
        pace.composed(up_to(12), false);
        pace.ended(at(2), Exchanged::Progress, 0);
        assert_eq!(pace.begin(at(2)), None, "the last of the walk is still under way");
        pace.ended(at(3), Exchanged::Progress, 0);
        assert_eq!(pace.begin(at(3)), Some(Walk::default()), "there may be more");
    }

    #[test]
    fn what_was_not_taken_is_passed_by_after_a_rest_and_asked_again_on_the_next_walk() {
        let mut pace = Pace::default();
        pace.news();
        assert!(pace.begin(at(0)).is_some());
        pace.composed(up_to(5), true);
        pace.ended(at(1), Exchanged::Later, 0);
        assert_eq!((pace.begin(at(1)), pace.due()), (None, Some(at(126))), "the other site may be full");
        assert_eq!(pace.begin(at(126)), Some(up_to(5)));
        pace.composed(up_to(9), true);
        assert_eq!(pace.begin(at(126)), None, "one at a time as long as nothing is taken");
        pace.ended(at(127), Exchanged::Progress, 0);
        assert_eq!(pace.begin(at(127)), Some(up_to(9)));
        pace.composed(up_to(12), false);
        pace.ended(at(128), Exchanged::Progress, 0);
        assert_eq!(pace.begin(at(128)), Some(Walk::default()));
    }

    #[test]
    fn after_a_failure_a_walk_begins_anew_and_letters_that_fail_together_are_one_failure() {
        let mut pace = Pace::default();
        pace.news();
        for number in [5, 9] {
            assert!(pace.begin(at(0)).is_some());
            pace.composed(up_to(number), true);
        }
        pace.ended(at(0), Exchanged::Failed, 1_000);
        pace.ended(at(1), Exchanged::Failed, 1_000);
        assert_eq!((pace.begin(at(249)), pace.begin(at(250))), (None, Some(Walk::default())));
        pace.composed(up_to(5), true);
        assert_eq!(pace.begin(at(250)), None, "the line may be too slow for two");
        pace.ended(at(250), Exchanged::Failed, 1_000);
        assert_eq!(pace.due(), Some(at(750)), "the second, not the third");
    }

    #[test]
    fn a_site_that_asks_for_blobs_without_end_is_not_sent_them_without_rest() {
        let mut pace = Pace::default();
        pace.news();
        for _ in 0..SENT_IN_A_ROW_MAX {
            assert!(begins(&mut pace, at(0)));
            pace.ended(at(0), Exchanged::Sent, 1_000);
        }
        assert!(begins(&mut pace, at(0)));
        pace.ended(at(0), Exchanged::Sent, 1_000);
        assert!(!begins(&mut pace, at(249)) && begins(&mut pace, at(250)));
        pace.ended(at(250), Exchanged::Progress, 0);
        assert!(begins(&mut pace, at(250)));
        pace.ended(at(250), Exchanged::Sent, 1_000);
        assert!(begins(&mut pace, at(250)), "after progress it counts anew");
    }

    #[test]
    fn rests_double_up_to_a_bound_with_jitter_and_end_when_a_link_comes_up() {
        let mut pace = Pace::default();
        let mut now = at(0);
        for expected in [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            pace.news();
            assert!(begins(&mut pace, now));
            pace.ended(now, Exchanged::Failed, 1_000);
            let end = now.saturating_add(Duration::from_millis(expected));
            assert!(!begins(&mut pace, BootInstant(end.0 - Duration::from_millis(1))), "{expected}");
            assert_eq!(pace.due(), Some(end));
            now = end;
        }
        assert!(begins(&mut pace, now), "it is said again without news");
        pace.ended(now, Exchanged::Later, 0);
        assert!(!begins(&mut pace, now));
        pace.linked();
        assert!(begins(&mut pace, now));
        pace.ended(now, Exchanged::Failed, 0);
        assert!(
            begins(&mut pace, now.saturating_add(Duration::from_millis(125))),
            "the least rest is half of the first"
        );
    }
}

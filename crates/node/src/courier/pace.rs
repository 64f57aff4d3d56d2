//! When the next letter goes to one other site. Pure.
//!
//! One letter is under way at a time. After a failure, or an answer that took nothing, the courier rests: twice as long each
//! time, up to a bound, and not as long where the link has come back. It never gives up.

use std::time::Duration;

use fleet_core::BootInstant;

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
    is_under_way: bool,
    has_news: bool,
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

    /// Whether a letter goes now; if so it is under way.
    pub fn begin(&mut self, now: BootInstant) -> bool {
        if self.is_under_way || !self.has_news || self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        self.is_under_way = true;
        self.has_news = false;
        true
    }

    /// A letter came to its end. `jitter` is random, up to 1,000.
    pub fn ended(&mut self, now: BootInstant, exchanged: Exchanged, jitter: u32) {
        self.is_under_way = false;
        self.sent_in_a_row = if exchanged == Exchanged::Sent { self.sent_in_a_row.saturating_add(1) } else { 0 };
        match exchanged {
            Exchanged::Sent if self.sent_in_a_row <= SENT_IN_A_ROW_MAX => {
                self.linked();
                self.has_news = true;
            }
            Exchanged::Nothing => self.linked(),
            Exchanged::Progress => {
                self.linked();
                self.has_news = true;
            }
            Exchanged::Sent | Exchanged::Later | Exchanged::Failed => {
                let rest = REST_MIN.saturating_mul(2_u32.saturating_pow(self.failures.min(16))).min(REST_MAX);
                self.failures = self.failures.saturating_add(1);
                self.rests_until = Some(now.saturating_add(rest / 2 + rest * jitter.min(1_000) / 2_000));
                self.has_news = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootInstant {
        BootInstant(Duration::from_millis(millis))
    }

    #[test]
    fn one_letter_is_under_way_and_news_of_meanwhile_go_with_the_next() {
        let mut pace = Pace::default();
        assert!(!pace.begin(at(0)), "there is nothing to say");
        pace.news();
        assert!(pace.begin(at(0)));
        pace.news();
        assert!(!pace.begin(at(1)), "one is under way");
        pace.ended(at(2), Exchanged::Nothing, 0);
        assert!(pace.begin(at(2)), "there were news meanwhile");
        pace.ended(at(3), Exchanged::Progress, 0);
        assert!(pace.begin(at(3)), "there may be more");
        pace.ended(at(4), Exchanged::Nothing, 0);
        assert!(!pace.begin(at(5)));
    }

    #[test]
    fn a_site_that_asks_for_blobs_without_end_is_not_sent_them_without_rest() {
        let mut pace = Pace::default();
        pace.news();
        for _ in 0..SENT_IN_A_ROW_MAX {
            assert!(pace.begin(at(0)));
            pace.ended(at(0), Exchanged::Sent, 1_000);
        }
        assert!(pace.begin(at(0)));
        pace.ended(at(0), Exchanged::Sent, 1_000);
        assert!(!pace.begin(at(249)) && pace.begin(at(250)));
        pace.ended(at(250), Exchanged::Progress, 0);
        assert!(pace.begin(at(250)));
        pace.ended(at(250), Exchanged::Sent, 1_000);
        assert!(pace.begin(at(250)), "after progress it counts anew");
    }

    #[test]
    fn rests_double_up_to_a_bound_with_jitter_and_end_when_a_link_comes_up() {
        let mut pace = Pace::default();
        let mut now = at(0);
        for expected in [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            pace.news();
            assert!(pace.begin(now));
            pace.ended(now, Exchanged::Failed, 1_000);
            let end = now.saturating_add(Duration::from_millis(expected));
            assert!(!pace.begin(BootInstant(end.0 - Duration::from_millis(1))), "{expected}");
            now = end;
        }
        assert!(pace.begin(now), "it is said again without news");
        pace.ended(now, Exchanged::Later, 0);
        assert!(!pace.begin(now));
        pace.linked();
        assert!(pace.begin(now));
        pace.ended(now, Exchanged::Failed, 0);
        assert!(pace.begin(now.saturating_add(Duration::from_millis(125))), "the least rest is half of the first");
    }
}

//! How far the letters to one other site have come through what waits for it. Pure.
//!
//! A walk goes from the oldest rows to the newest, letter by letter: what the other site does not take now is passed by,
//! and asked again on the next walk. So one job that cannot go holds up none behind it.

use fleet_store::record::Serial;

/// Where the next letter begins: after these rows; `None` is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The last move that a letter of this walk looked at.
    pub moves: Option<Serial>,
    /// The last cancel, by its move.
    pub cancels: Option<Serial>,
    /// The last report.
    pub reports: Option<Serial>,
}

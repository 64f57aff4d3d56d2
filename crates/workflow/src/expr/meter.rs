//! The budget of one evaluation: steps, bytes and depth, counted by our own values and functions.
//!
//! Counting happens on the evaluating thread only, and what is counted is a function of the expression and its data:
//! the same evaluation ends at the same place everywhere. Once a limit is reached it stays reached: every operation
//! fails from then on, so that no `try` of the author can go on.

use std::cell::{Cell, RefCell};
use std::fmt;

/// Steps one evaluation may take.
pub const STEPS_MAX: u64 = 500_000;
/// Steps that all evaluations for one event may take together.
pub const STEPS_PER_EVENT_MAX: u64 = 5_000_000;
/// Bytes one evaluation may allocate in values, freed ones included.
pub const ALLOCATED_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Levels of arrays and objects in a value that an expression makes.
pub const VALUE_DEPTH_MAX: u32 = 100;
/// Estimated bytes of one value that an expression makes.
pub const VALUE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Estimated bytes of the result of an expression.
pub const RESULT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Nested updates through a recursive function such as `recurse(f) |= g`.
const UPDATE_DEPTH_MAX: u32 = 200;

/// Which limit an evaluation reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Steps,
    EventSteps,
    Allocation,
    ValueDepth,
    ValueSize,
    ResultSize,
    UpdateDepth,
    PathLength,
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps => write!(formatter, "the expression takes more than {STEPS_MAX} steps"),
            Self::EventSteps => {
                write!(formatter, "the expressions since the last event take more than {STEPS_PER_EVENT_MAX} steps")
            }
            Self::Allocation => write!(formatter, "the expression needs more than {ALLOCATED_BYTES_MAX} bytes"),
            Self::ValueDepth => write!(formatter, "a value is nested deeper than {VALUE_DEPTH_MAX} levels"),
            Self::ValueSize => write!(formatter, "a value is larger than {VALUE_BYTES_MAX} bytes"),
            Self::ResultSize => write!(formatter, "the result is larger than {RESULT_BYTES_MAX} bytes"),
            Self::UpdateDepth => write!(formatter, "updates are nested deeper than {UPDATE_DEPTH_MAX} levels"),
            Self::PathLength => write!(formatter, "a path is longer than {VALUE_DEPTH_MAX} parts"),
        }
    }
}

thread_local! {
    static STEPS_LEFT: Cell<u64> = const { Cell::new(STEPS_MAX) };
    static EVENT_STEPS: Cell<u64> = const { Cell::new(0) };
    static BYTES_LEFT: Cell<u64> = const { Cell::new(ALLOCATED_BYTES_MAX) };
    static REACHED: RefCell<Option<Limit>> = const { RefCell::new(None) };
    static UPDATE_DEPTH: Cell<u32> = const { Cell::new(0) };
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
}

/// Begins an evaluation at the recorded time `now_ms`.
pub(super) fn begin(now_ms: u64) {
    STEPS_LEFT.set(STEPS_MAX);
    BYTES_LEFT.set(ALLOCATED_BYTES_MAX);
    REACHED.set(None);
    UPDATE_DEPTH.set(0);
    NOW_MS.set(now_ms);
}

/// Begins the evaluations for an event of the journal: what they take together is counted from here, on this thread.
/// The machine calls it for every event it applies.
pub fn begin_event() {
    EVENT_STEPS.set(0);
}

/// Refuses an evaluation if those before it for the same event took too much.
pub(super) fn admit_evaluation() -> Result<(), Limit> {
    if EVENT_STEPS.get() > STEPS_PER_EVENT_MAX { Err(Limit::EventSteps) } else { Ok(()) }
}

/// Counts the steps of an evaluation, which may have run on another thread, among those of the event.
pub(super) fn add_to_event(steps: u64) {
    EVENT_STEPS.set(EVENT_STEPS.get().saturating_add(steps));
}

/// Steps taken since the evaluation began.
pub(super) fn steps_taken() -> u64 {
    STEPS_MAX - STEPS_LEFT.get()
}

/// The limit that this evaluation reached, if any.
pub(super) fn reached() -> Option<Limit> {
    REACHED.with_borrow(|reached| *reached)
}

/// The recorded time of this evaluation, milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    NOW_MS.get()
}

/// Ends the evaluation for good.
pub(super) fn stop(limit: Limit) -> Limit {
    REACHED.with_borrow_mut(|reached| *reached.get_or_insert(limit))
}

/// Counts steps.
pub(super) fn step(count: u64) -> Result<(), Limit> {
    if let Some(limit) = reached() {
        return Err(limit);
    }
    match STEPS_LEFT.get().checked_sub(count) {
        Some(left) => {
            STEPS_LEFT.set(left);
            Ok(())
        }
        None => {
            STEPS_LEFT.set(0);
            Err(stop(Limit::Steps))
        }
    }
}

/// Counts bytes of a new value, and the steps it takes to write them.
pub(super) fn allocate(bytes: u64) -> Result<(), Limit> {
    step(1 + bytes / 256)?;
    match BYTES_LEFT.get().checked_sub(bytes) {
        Some(left) => {
            BYTES_LEFT.set(left);
            Ok(())
        }
        None => Err(stop(Limit::Allocation)),
    }
}

/// Enters one level of a recursive update.
pub(super) fn enter_update() -> Result<(), Limit> {
    if let Some(limit) = reached() {
        return Err(limit);
    }
    let depth = UPDATE_DEPTH.get() + 1;
    UPDATE_DEPTH.set(depth);
    if depth > UPDATE_DEPTH_MAX { Err(stop(Limit::UpdateDepth)) } else { Ok(()) }
}

/// Leaves it.
pub(super) fn leave_update() {
    UPDATE_DEPTH.set(UPDATE_DEPTH.get().saturating_sub(1));
}

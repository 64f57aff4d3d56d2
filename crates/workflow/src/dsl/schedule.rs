//! `schedule`: when runs start by themselves.

use super::duration::{self, Duration};
use super::event::{ConsumptionStrategy, read_strategy};
use super::fields::Fields;
use super::reader::{Place, Reader};
use super::value::text;

/// When runs start by themselves.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// At an interval, whether or not the last run ended.
    Every(Duration),
    /// At the times of a cron expression.
    Cron(String),
    /// Some time after the last run ended.
    After(Duration),
    /// When events come.
    On(ConsumptionStrategy),
}

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<Schedule> {
    let what = "a schedule";
    let mut fields = Fields::open(place, what, reader)?;
    let chosen = fields.exactly_one(&["every", "cron", "after", "on"], what, reader);
    fields.finish(what, reader);
    reader.cannot_run(place, "a schedule");
    let (key, place) = chosen?;
    match key {
        "every" => duration::read(&place, reader).map(Schedule::Every),
        "cron" => text(&place, reader).map(Schedule::Cron),
        "after" => duration::read(&place, reader).map(Schedule::After),
        _ => read_strategy(&place, reader).map(Schedule::On),
    }
}

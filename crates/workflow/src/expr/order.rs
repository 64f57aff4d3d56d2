//! The order of values, as jq has it: null, false, true, numbers, strings, arrays, objects.
//!
//! Comparing cannot fail, so once the budget is spent it says "equal" at once; the evaluation fails all the same.

use std::cmp::Ordering;

use super::meter;
use super::val::{Members, Val};

fn rank(value: &Val) -> u8 {
    match value {
        Val::Null => 0,
        Val::Bool(false) => 1,
        Val::Bool(true) => 2,
        Val::Int(_) | Val::Unsigned(_) | Val::Float(_) => 3,
        Val::Str(_) => 4,
        Val::Arr(_) => 5,
        Val::Obj(_) => 6,
    }
}

/// Not-a-number is below every other number and equal to itself, so that sorting has a total order.
fn compare_numbers(left: &Val, right: &Val) -> Ordering {
    match (left, right) {
        (Val::Int(left), Val::Int(right)) => left.cmp(right),
        (Val::Unsigned(left), Val::Unsigned(right)) => left.cmp(right),
        (Val::Int(_), Val::Unsigned(_)) => Ordering::Less,
        (Val::Unsigned(_), Val::Int(_)) => Ordering::Greater,
        _ => {
            let (left, right) = (left.as_float().unwrap_or(f64::NAN), right.as_float().unwrap_or(f64::NAN));
            left.partial_cmp(&right).unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
        }
    }
}

fn compare_members(left: &Members, right: &Members) -> Ordering {
    fn sorted(members: &Members) -> Vec<&std::sync::Arc<str>> {
        let mut keys: Vec<_> = members.keys().collect();
        keys.sort_unstable();
        keys
    }
    let (left_keys, right_keys) = (sorted(left), sorted(right));
    left_keys.cmp(&right_keys).then_with(|| {
        let unequal = left_keys.iter().map(|key| left.get(*key).cmp(&right.get(*key)));
        unequal.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    })
}

impl Ord for Val {
    fn cmp(&self, other: &Self) -> Ordering {
        if meter::step(1).is_err() {
            return Ordering::Equal;
        }
        rank(self).cmp(&rank(other)).then_with(|| match (self, other) {
            (Self::Str(left), Self::Str(right)) => left.cmp(right),
            (Self::Arr(left), Self::Arr(right)) => left.items().cmp(right.items()),
            (Self::Obj(left), Self::Obj(right)) => compare_members(left.members(), right.members()),
            (Self::Null | Self::Bool(_), _) => Ordering::Equal,
            _ => compare_numbers(self, other),
        })
    }
}

impl PartialOrd for Val {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Val {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            // Cheap and common: different sizes cannot be equal.
            (Self::Arr(left), Self::Arr(right)) if left.items().len() != right.items().len() => false,
            (Self::Obj(left), Self::Obj(right)) if left.members().len() != right.members().len() => false,
            _ => self.cmp(other).is_eq(),
        }
    }
}

impl Eq for Val {}

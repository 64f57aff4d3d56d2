//! `switch`: where to go on.

use super::fields::Fields;
use super::reader::{Place, Reader};
use super::task::{Then, read_then};
use super::value::{expression, list, single};

/// Goes on as the first case says that matches. Without a match the task's own `then` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// The cases by name, in the order they are tried, the default last whatever its place.
    pub cases: Vec<(String, SwitchCase)>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchCase {
    /// Expression that must be true; absent in the default case.
    pub when: Option<String>,
    /// Where to go on.
    pub then: Then,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Switch> {
    fields.required("switch", reader, read_switch)
}

fn read_switch(place: &Place<'_>, reader: &mut Reader) -> Option<Switch> {
    let mut defaults = 0;
    let mut names = std::collections::BTreeSet::new();
    let cases = list(place, reader, |item, reader| {
        let (member, place) = single(item, "a case", reader)?;
        if !names.insert(member.key.clone()) {
            let message = format!("a case named `{}` is already in this switch", member.key);
            reader.problem_at(place.pointer.clone(), member.position, message);
        }
        let case = read_case(&place, reader)?;
        if case.when.is_none() && !place.members().unwrap_or_default().iter().any(|(member, _)| member.key == "when") {
            defaults += 1;
            if defaults == 2 {
                reader.problem(&place, "a switch has one default case; a case before this one has no `when` either");
            }
        }
        Some((member.key.clone(), case))
    })?;
    if cases.is_empty() {
        reader.problem(place, "`switch` needs at least one case");
    }
    let (mut ordered, default): (Vec<_>, Vec<_>) = cases.into_iter().partition(|(_, case)| case.when.is_some());
    ordered.extend(default);
    Some(Switch { cases: ordered })
}

fn read_case(place: &Place<'_>, reader: &mut Reader) -> Option<SwitchCase> {
    let what = "a case";
    let mut fields = Fields::open(place, what, reader)?;
    let when = fields.optional("when", reader, expression);
    let then = fields.required("then", reader, read_then);
    fields.finish(what, reader);
    Some(SwitchCase { when, then: then? })
}

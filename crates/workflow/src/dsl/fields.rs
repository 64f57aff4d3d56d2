//! The fields of an object: each is asked for by name, and those never asked for are unknown.

use super::reader::{Place, Reader};
use crate::source::Member;

/// The fields of an object, each asked for by name. Those never asked for are unknown.
pub(crate) struct Fields<'a> {
    pub(crate) place: Place<'a>,
    members: Vec<(&'a Member, Place<'a>)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Opens an object; `what` names it in messages.
    pub(crate) fn open(place: &Place<'a>, what: &str, reader: &mut Reader) -> Option<Self> {
        match place.members() {
            Some(members) => Some(Self { place: place.clone(), members, known: Vec::new() }),
            None => {
                reader.problem(place, format!("{what} must be an object, not {}", place.node.kind()));
                None
            }
        }
    }

    /// The place of a field, if it is there.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Place<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.members.iter().find(|(member, _)| member.key == key).map(|(_, place)| place.clone())
    }

    /// Whether a field is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.members.iter().any(|(member, _)| member.key == key)
    }

    /// Reads a field that may be absent.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        reader: &mut Reader,
        read: impl FnOnce(&Place<'a>, &mut Reader) -> Option<T>,
    ) -> Option<T> {
        self.take(key).and_then(|place| read(&place, reader))
    }

    /// Reads a field that must be there.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        reader: &mut Reader,
        read: impl FnOnce(&Place<'a>, &mut Reader) -> Option<T>,
    ) -> Option<T> {
        match self.take(key) {
            Some(place) => read(&place, reader),
            None => {
                self.missing(key, reader);
                None
            }
        }
    }

    /// Reports that `key` is missing, unless a misspelt one will be reported as unknown with `key` as suggestion.
    fn missing(&self, key: &str, reader: &mut Reader) {
        let known = |name: &str| self.known.contains(&name);
        let misspelt = self
            .members
            .iter()
            .any(|(member, _)| !known(&member.key) && reader.suggestion(&member.key, [key]).is_some());
        let hint = if misspelt { " (a key beside it looks like it)" } else { "" };
        reader.problem(&self.place, format!("`{key}` is missing{hint}"));
    }

    /// Exactly one of `keys`: reports none or several, gives the one.
    pub(crate) fn exactly_one(
        &mut self,
        keys: &[&'static str],
        what: &str,
        reader: &mut Reader,
    ) -> Option<(&'static str, Place<'a>)> {
        let mut found = Vec::new();
        for key in keys {
            if let Some(place) = self.take(key) {
                found.push((*key, place));
            }
        }
        if found.len() == 1 {
            return found.pop();
        }
        let listed = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let message = if found.is_empty() {
            format!("{what} needs exactly one of {listed}; none is there")
        } else {
            let there = found.iter().map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
            format!("{what} needs exactly one of {listed}; it has {there}")
        };
        reader.problem(&self.place, message);
        None
    }

    /// The fields that were never asked for, where any key is allowed.
    pub(crate) fn unknown(self) -> Vec<(&'a Member, Place<'a>)> {
        let Self { members, known, .. } = self;
        members.into_iter().filter(|(member, _)| !known.iter().any(|key| *key == member.key)).collect()
    }

    /// Reports every field that was never asked for.
    pub(crate) fn finish(self, what: &str, reader: &mut Reader) {
        let free: Vec<&str> = self.known.iter().copied().filter(|key| !self.has(key)).collect();
        for (member, place) in &self.members {
            if self.known.iter().any(|known| *known == member.key) {
                continue;
            }
            let hint = match reader.suggestion(&member.key, free.iter().copied()) {
                Some(close) => format!("did you mean `{close}`?"),
                None if self.known.is_empty() => "no key is known here".to_owned(),
                None => format!("known keys: {}", self.known.join(", ")),
            };
            reader.problem_at(
                place.pointer.clone(),
                member.position,
                format!("unknown key `{}` in {what}; {hint}", member.key),
            );
        }
    }
}

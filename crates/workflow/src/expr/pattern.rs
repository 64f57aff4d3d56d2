//! Regular expressions of jq, by an engine that is linear in the text, with a bounded program.

use regex::{Regex, RegexBuilder};

use super::arithmetic::{Error, ValR};
use super::meter;
use super::val::Val;

/// Compiled bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// Which parts of the text are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    /// The matches, each an array of its groups.
    Matches,
    /// What lies between them.
    Between,
    /// Both, in order.
    Both,
}

fn text_of(value: &Val) -> Result<&str, Error> {
    value.as_text().ok_or_else(|| Error::typ(value.clone(), "string"))
}

/// Applies a pattern with jq's flags to a text.
pub(super) fn apply(value: &Val, pattern: &Val, flags: &Val, parts: Parts) -> ValR {
    let text = text_of(value)?;
    let pattern = text_of(pattern)?;
    let flags = if matches!(flags, Val::Null) { "" } else { text_of(flags)? };
    meter::step(64 + (text.len() as u64).saturating_mul(1 + pattern.len() as u64 / 16) / 64)?;
    let expression = compile(pattern, flags)?;
    let names: Vec<Option<&str>> = expression.capture_names().collect();
    let (all, skip_empty) = (flags.contains('g'), flags.contains('n'));
    let mut found = Vec::new();
    let mut end = 0;
    let mut characters = Characters { text, byte: 0, index: 0 };
    for groups in expression.captures_iter(text) {
        meter::step(1)?;
        let Some(whole) = groups.get(0) else { continue };
        if skip_empty && whole.is_empty() {
            continue;
        }
        if parts != Parts::Matches {
            found.push(Val::new_text(&text[end..whole.start()])?);
            end = whole.end();
        }
        if parts != Parts::Between {
            let start = characters.index_of(whole.start());
            let matched = groups.iter().zip(&names);
            let matched = matched.filter_map(|(group, name)| Some((group?, *name)));
            let described = matched.map(|(group, name)| describe(group, name, text, whole.start(), start));
            found.push(Val::array(described.collect::<Result<Vec<_>, _>>()?)?);
        }
        if !all {
            break;
        }
    }
    if parts != Parts::Matches {
        found.push(Val::new_text(&text[end..])?);
    }
    Ok(Val::array(found)?)
}

fn compile(pattern: &str, flags: &str) -> Result<Regex, Error> {
    if let Some(flag) = flags.chars().find(|flag| !"gnimslxp".contains(*flag)) {
        return Err(Error::str(format_args!("`{flag}` is not a flag of regular expressions")));
    }
    let has = |flag| flags.contains(flag);
    RegexBuilder::new(pattern)
        .case_insensitive(has('i'))
        .multi_line(has('m') || has('p'))
        .dot_matches_new_line(has('s') || has('p'))
        .swap_greed(has('l'))
        .ignore_whitespace(has('x'))
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|error| Error::str(format_args!("invalid regular expression: {error}")))
}

/// Character indices for byte indices that only grow.
struct Characters<'a> {
    text: &'a str,
    byte: usize,
    index: usize,
}

impl Characters<'_> {
    fn index_of(&mut self, byte: usize) -> usize {
        self.index += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.index
    }
}

fn describe(
    group: regex::Match<'_>,
    name: Option<&str>,
    text: &str,
    whole_start: usize,
    whole_index: usize,
) -> Result<Val, Error> {
    meter::step(1 + group.len() as u64 / 64)?;
    let offset = if group.start() >= whole_start {
        whole_index + text[whole_start..group.start()].chars().count()
    } else {
        whole_index
    };
    let mut members = vec![
        ("offset".into(), Val::from(offset)),
        ("length".into(), Val::from(group.as_str().chars().count())),
        ("string".into(), Val::new_text(group.as_str())?),
    ];
    if let Some(name) = name {
        members.push(("name".into(), Val::text(name)));
    }
    Ok(Val::object(members)?)
}

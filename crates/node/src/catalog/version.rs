//! The order of semantic versions (Semantic Versioning 2.0.0, §11): which version of a workflow is the highest.

use std::cmp::Ordering;

/// Compares two versions. What differs only in build metadata, which has no order, is ordered by its text; so is what is
/// no semantic version, which the language never lets in.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let (core, pre_release) = parts(one);
    let (other_core, other_pre_release) = parts(other);
    identifiers(core, other_core)
        .then_with(|| match (pre_release, other_pre_release) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(other)) => identifiers(one, other),
        })
        .then_with(|| one.cmp(other))
}

/// A version without its build metadata, cut at its first hyphen.
fn parts(version: &str) -> (&str, Option<&str>) {
    let version = version.split_once('+').map_or(version, |(version, _)| version);
    version.split_once('-').map_or((version, None), |(core, pre_release)| (core, Some(pre_release)))
}

/// Identifiers between dots, one by one; more of them are more, where the shorter list is a beginning of the longer.
fn identifiers(one: &str, other: &str) -> Ordering {
    let (mut ones, mut others) = (one.split('.'), other.split('.'));
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => match identifier(one, other) {
                Ordering::Equal => {}
                different => return different,
            },
        }
    }
}

/// Numbers by size, and before words; words by their bytes. Numbers have no leading zeros, so the longer is the greater.
fn identifier(one: &str, other: &str) -> Ordering {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match (is_number(one), is_number(other)) {
        (true, true) => one.len().cmp(&other.len()).then_with(|| one.cmp(other)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_order_of_the_specification() {
        let ascending = [
            "0.0.9",
            "0.9.0",
            "0.10.0",
            "1.0.0-0",
            "1.0.0-9",
            "1.0.0-10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0+1",
            "1.0.1",
            "2.0.0",
            "10.0.0",
            "99999999999999999999999999.0.0",
        ];
        for (position, one) in ascending.iter().enumerate() {
            for (other_position, other) in ascending.iter().enumerate() {
                assert_eq!(compare(one, other), position.cmp(&other_position), "{one} and {other}");
            }
        }
    }
}

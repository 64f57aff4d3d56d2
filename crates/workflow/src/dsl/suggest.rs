//! "Did you mean": the closest of some known words.

/// Words longer than this are not compared.
const MAX_LENGTH: usize = 64;

/// More words than this are not compared.
const MAX_WORDS: usize = 500;

/// The known word closest to `word`, if it is close enough to be a slip of the hand.
pub(crate) fn suggestion<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word: Vec<char> = word.chars().take(MAX_LENGTH + 1).collect();
    if word.is_empty() || word.len() > MAX_LENGTH {
        return None;
    }
    let mut best: Option<(usize, &'k str)> = None;
    for candidate in known.into_iter().take(MAX_WORDS) {
        let letters: Vec<char> = candidate.chars().take(MAX_LENGTH + 1).collect();
        let allowed = (word.len().max(letters.len()) / 3).clamp(1, 3);
        let distance = distance(&word, &letters);
        if distance <= allowed && distance < letters.len() && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements, swaps of neighbours and changes of case it takes from one word to the other; a
/// change of case alone counts as nothing.
fn distance(left: &[char], right: &[char]) -> usize {
    let same = |a: char, b: char| a.eq_ignore_ascii_case(&b);
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let replace = above[column] + usize::from(!same(*a, *b));
            let mut least = replace.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && same(*a, right[column - 1]) && same(left[row - 1], *b) {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::suggestion;

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_a_different_word_is_not() {
        let known = ["call", "with", "exceptWhen", "retry"];
        for (word, expected) in [
            ("cal", Some("call")),
            ("wiht", Some("with")),
            ("exceptwhen", Some("exceptWhen")),
            ("retyr", Some("retry")),
            ("something", None),
            ("", None),
        ] {
            assert_eq!(suggestion(word, known), expected, "{word}");
        }
    }
}

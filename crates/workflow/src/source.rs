//! Text to a positioned tree: JSON or YAML, told by content; every node knows its line and column.
//!
//! What it is not: it knows nothing of workflows. Invariants: a tree is never deeper than [`MAX_DEPTH`], never has more
//! than [`MAX_NODES`] nodes or [`MAX_EXPANDED_BYTES`] bytes of text after alias expansion, and no object has the same key
//! twice. Building, reading and dropping a tree therefore needs a bounded stack.

mod builder;
mod json;
mod yaml;

use serde_json::{Map, Number, Value};

/// Largest file, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Largest definition of a job, in bytes of JSON. Aliases of a file are expanded in it, so it may be larger than the file.
pub const MAX_DEFINITION_BYTES: usize = 2 * MAX_BYTES;
/// Deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 100;
/// Most nodes, aliases expanded.
pub const MAX_NODES: usize = 200_000;
/// Most bytes of keys and strings, aliases expanded.
pub const MAX_EXPANDED_BYTES: usize = 4 << 20;

/// A place in the text: line and column from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

/// One value of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub position: Position,
    /// What it is.
    pub content: Content,
}

/// The content of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// `null`, or nothing at all in YAML.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A finite number.
    Number(Number),
    /// Text.
    Text(String),
    /// An array.
    Array(Vec<Node>),
    /// An object, in the author's order.
    Object(Vec<Member>),
}

/// One key and value of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub position: Position,
    /// The value.
    pub value: Node,
}

/// Why a text has no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub position: Position,
    /// JSON pointer of the value or of the object that holds it, as far as known.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl Node {
    /// The value of an object's member.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Object(members) => members.iter().find(|member| member.key == key).map(|member| &member.value),
            _ => None,
        }
    }

    /// The same as plain JSON.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Boolean(boolean) => Value::Bool(*boolean),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::Array(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Content::Object(members) => {
                let pairs = members.iter().map(|member| (member.key.clone(), member.value.to_value()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// What it is, for messages: `a string`, `an object` and so on.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "null",
            Content::Boolean(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::Text(_) => "a string",
            Content::Array(_) => "an array",
            Content::Object(_) => "an object",
        }
    }
}

/// A tree, and what is wrong with the text although it has one: keys that stand twice, merge keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// The root of the tree.
    pub root: Node,
    /// What is wrong all the same.
    pub errors: Vec<SyntaxError>,
}

/// Reads a file. It is JSON if it begins with `{` and then `"` or `}`, or with `[`; else it is YAML.
pub fn parse(bytes: &[u8]) -> Result<Tree, SyntaxError> {
    parse_text(bytes, "the file", MAX_BYTES)
}

/// Reads the definition of a job: a file that was accepted, as JSON.
pub fn parse_definition(json: &[u8]) -> Result<Tree, SyntaxError> {
    parse_text(json, "the definition", MAX_DEFINITION_BYTES)
}

fn parse_text(bytes: &[u8], what: &str, bytes_max: usize) -> Result<Tree, SyntaxError> {
    if bytes.len() > bytes_max {
        let message = format!("{what} has {} bytes, more than the limit of {bytes_max}", bytes.len());
        return Err(SyntaxError::at_start(message));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
        let position = Lines::new(&valid).position(valid.len());
        SyntaxError { position, pointer: String::new(), message: "the file is not UTF-8 text".to_owned() }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut start = text.chars().filter(|character| !character.is_whitespace());
    match (start.next(), start.next()) {
        (None, _) => Err(SyntaxError::at_start("the file is empty".to_owned())),
        (Some('['), _) | (Some('{'), None | Some('"' | '}')) => json::parse(text),
        _ => yaml::parse(text),
    }
}

impl SyntaxError {
    fn at_start(message: String) -> Self {
        Self { position: Position { line: 1, column: 1 }, pointer: String::new(), message }
    }
}

/// Bytes between two places of a text at which its characters are counted beforehand.
const COUNT_EVERY: usize = 1_024;

/// Byte offsets to positions. Finding one costs the same however long its line is: a file may be one line.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// Characters that begin before each multiple of [`COUNT_EVERY`].
    counts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        let mut counts = vec![0];
        for chunk in text.as_bytes().chunks(COUNT_EVERY) {
            counts.push(counts.last().copied().unwrap_or(0) + characters(chunk));
        }
        Self { text, starts: std::iter::once(0).chain(ends).collect(), counts }
    }

    /// How many characters begin before `offset`.
    fn characters_before(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        let counted = offset / COUNT_EVERY;
        let rest = self.text.as_bytes().get(counted * COUNT_EVERY..offset).unwrap_or_default();
        self.counts.get(counted).copied().unwrap_or(0) + characters(rest)
    }

    /// The position of a byte offset. One inside a character counts as the character's.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.characters_before(offset).saturating_sub(self.characters_before(start)) + 1;
        Position { line: saturate(line), column: saturate(column) }
    }

    /// The byte offset of a line (from 1) and a byte column (from 1).
    pub(crate) fn offset(&self, line: usize, byte_column: usize) -> usize {
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        (start + byte_column.saturating_sub(1)).min(self.text.len())
    }
}

/// How many characters begin in `bytes` of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count()
}

/// A count as a position holds it. A text within the limits never saturates.
pub(crate) fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Appends one segment to a JSON pointer.
pub(crate) fn pointer_join(pointer: &str, segment: &str) -> String {
    let mut joined = String::with_capacity(pointer.len() + segment.len() + 1);
    joined.push_str(pointer);
    joined.push('/');
    for character in segment.chars() {
        match character {
            '~' => joined.push_str("~0"),
            '/' => joined.push_str("~1"),
            other => joined.push(other),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_the_characters_of_its_line_however_long_it_is() {
        let long = "aä€\u{1F600}".repeat(2 * COUNT_EVERY);
        for text in [format!("{long}\nshort\n{long}"), "x".repeat(COUNT_EVERY), String::new()] {
            let lines = Lines::new(&text);
            let offsets = (0..=text.len()).filter(|offset| text.is_char_boundary(*offset)).step_by(7);
            for offset in offsets.chain([text.len()]) {
                let before = &text[..offset];
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                let expected = Position { line: saturate(before.matches('\n').count() + 1), column: saturate(column) };
                assert_eq!(lines.position(offset), expected, "{offset}");
            }
        }
    }
}

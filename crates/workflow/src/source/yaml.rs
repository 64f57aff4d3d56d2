//! YAML 1.2 to a tree, by the core schema: only `true` and `false` are booleans; `on`, `yes` and their like are strings.
//!
//! One document per file. Merge keys and tags beyond the core schema are refused. An alias is expanded, and the copy
//! counts against the limits of the tree.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Number;

use super::builder::Builder;
use super::{Content, MAX_DEPTH, Node, Position, SyntaxError, Tree, saturate};

/// A value that aliases can name, and what a copy of it costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// The state of one reading.
struct Reading {
    builder: Builder,
    anchors: BTreeMap<usize, Anchored>,
    /// The anchors of the open arrays and objects, 0 for none.
    open_anchors: Vec<usize>,
    documents: usize,
}

pub(super) fn parse(text: &str) -> Result<Tree, SyntaxError> {
    let mut reading =
        Reading { builder: Builder::new(), anchors: BTreeMap::new(), open_anchors: Vec::new(), documents: 0 };
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let marker = error.marker();
            let position = Position { line: saturate(marker.line().max(1)), column: saturate(marker.col() + 1) };
            reading.builder.error(position, format!("not valid YAML: {}", error.info()))
        })?;
        reading.event(event, span)?;
    }
    reading.builder.finish().ok_or_else(|| SyntaxError::at_start("the file is empty".to_owned()))
}

impl Reading {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let position = Position { line: saturate(span.start.line().max(1)), column: saturate(span.start.col() + 1) };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self
                        .builder
                        .error(position, "a file holds one YAML document; here begins another".to_owned()));
                }
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, position),
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag.as_deref(), position),
            Event::SequenceStart(anchor, tag) => {
                self.check_collection(tag.as_deref(), "seq", position)?;
                self.builder.begin_array(position)?;
                self.open_anchors.push(anchor);
                Ok(())
            }
            Event::MappingStart(anchor, tag) => {
                self.check_collection(tag.as_deref(), "map", position)?;
                self.builder.begin_object(position)?;
                self.open_anchors.push(anchor);
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let anchor = self.open_anchors.pop().unwrap_or(0);
                match self.builder.end() {
                    Some(node) => self.add(node, anchor),
                    None => Ok(()),
                }
            }
        }
    }

    /// An array or object can be no key, and has no tag but its own.
    fn check_collection(&self, tag: Option<&Tag>, own: &str, position: Position) -> Result<(), SyntaxError> {
        if self.builder.wants_key() {
            return Err(self.builder.error(position, "a key must be a plain value".to_owned()));
        }
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == own) => {
                Err(self.builder.error(position, format!("the tag `{tag}` is not known")))
            }
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        position: Position,
    ) -> Result<(), SyntaxError> {
        if self.builder.wants_key() {
            if text == "<<" && style == ScalarStyle::Plain {
                self.builder.note(position, "merge keys (`<<`) are not part of YAML 1.2".to_owned());
            }
            if anchor != 0 {
                let node = Node { position, content: Content::Text(text.to_owned()) };
                self.remember(&node, anchor)?;
            }
            return self.builder.key(text.to_owned(), position);
        }
        let content = match resolve(text, style, tag) {
            Ok(content) => content,
            Err(message) => return Err(self.builder.error(position, message)),
        };
        // The place of nothing is the place of its key.
        let position = match (&content, self.builder.key_position()) {
            (Content::Null, Some(key)) if text.is_empty() => key,
            _ => position,
        };
        let bytes = if let Content::Text(text) = &content { text.len() } else { 0 };
        self.builder.charge(1, bytes, position)?;
        self.add(Node { position, content }, anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            self.remember(&node, anchor)?;
        }
        self.builder.add(node);
        Ok(())
    }

    /// Keeps a copy for aliases. The copy counts against the limits like any other.
    fn remember(&mut self, node: &Node, anchor: usize) -> Result<(), SyntaxError> {
        let (nodes, bytes, depth) = measure(node);
        self.builder.charge(nodes, bytes, node.position)?;
        self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, bytes, depth });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, position: Position) -> Result<(), SyntaxError> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(self.builder.error(position, "an alias inside its own anchor".to_owned()));
        };
        if self.builder.depth() + anchored.depth > MAX_DEPTH {
            return Err(self.builder.error(position, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.builder.charge(anchored.nodes, anchored.bytes, position)?;
        if self.builder.wants_key() {
            let Content::Text(text) = &anchored.node.content else {
                return Err(self.builder.error(position, "a key must be a plain value".to_owned()));
            };
            return self.builder.key(text.clone(), position);
        }
        self.builder.add(anchored.node.clone());
        Ok(())
    }
}

/// Nodes, bytes of text and levels of a tree.
fn measure(node: &Node) -> (usize, usize, usize) {
    match &node.content {
        Content::Text(text) => (1, text.len(), 0),
        Content::Null | Content::Boolean(_) | Content::Number(_) => (1, 0, 0),
        Content::Array(items) => sum(items.iter().map(|item| (0, item))),
        Content::Object(members) => sum(members.iter().map(|member| (member.key.len(), &member.value))),
    }
}

fn sum<'a>(children: impl Iterator<Item = (usize, &'a Node)>) -> (usize, usize, usize) {
    children.fold((1, 0, 1), |(nodes, bytes, depth), (key_bytes, child)| {
        let (child_nodes, child_bytes, child_depth) = measure(child);
        (nodes + child_nodes, bytes + key_bytes + child_bytes, depth.max(child_depth + 1))
    })
}

/// The value of a scalar by the core schema.
fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Content, String> {
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => plain(text),
            _ => Ok(Content::Text(text.to_owned())),
        };
    };
    let is_unspecific = tag.suffix.is_empty() || (tag.handle.is_empty() && tag.suffix == "!");
    if is_unspecific || (tag.is_yaml_core_schema() && tag.suffix == "str") {
        return Ok(Content::Text(text.to_owned()));
    }
    let content =
        if tag.is_yaml_core_schema() { plain(text)? } else { return Err(format!("the tag `{tag}` is not known")) };
    let fits = match (tag.suffix.as_str(), &content) {
        ("null", Content::Null) | ("bool", Content::Boolean(_)) | ("float", Content::Number(_)) => true,
        ("int", Content::Number(number)) => !number.is_f64(),
        _ => false,
    };
    if fits { Ok(content) } else { Err(format!("`{text}` is not a value of the tag `{tag}`")) }
}

/// The value of a plain scalar by the core schema.
fn plain(text: &str) -> Result<Content, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Content::Null),
        "true" | "True" | "TRUE" => return Ok(Content::Boolean(true)),
        "false" | "False" | "FALSE" => return Ok(Content::Boolean(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(format!("the number {text} cannot be written in JSON"));
    }
    if !is_number(text, unsigned) {
        return Ok(Content::Text(text.to_owned()));
    }
    number(text, unsigned).map(Content::Number).ok_or_else(|| format!("the number {text} is out of range"))
}

fn is_number(text: &str, unsigned: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return !hexadecimal.is_empty() && hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)));
    let mantissa_fits = match mantissa.split_once('.') {
        None => digits(mantissa),
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
    };
    exponent_fits && mantissa_fits
}

fn number(text: &str, unsigned: &str) -> Option<Number> {
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return u64::from_str_radix(hexadecimal, 16).ok().map(Number::from);
    }
    let signed = if text.starts_with('+') { unsigned } else { text };
    if let Ok(integer) = signed.parse::<i64>() {
        return Some(Number::from(integer));
    }
    if let Ok(integer) = signed.parse::<u64>() {
        return Some(Number::from(integer));
    }
    Number::from_f64(signed.parse::<f64>().ok()?)
}

//! Builds a tree from the events of either reader, with an explicit stack, and keeps its bounds.

use super::{
    Content, MAX_DEPTH, MAX_EXPANDED_BYTES, MAX_NODES, Member, Node, Position, SyntaxError, Tree, pointer_join,
};

/// An array or object not yet ended.
enum Open {
    Array { position: Position, items: Vec<Node> },
    Object { position: Position, members: Vec<Member>, key: Option<(String, Position)> },
}

/// What is known so far.
pub(super) struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    errors: Vec<SyntaxError>,
    nodes: usize,
    bytes: usize,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), root: None, errors: Vec::new(), nodes: 0, bytes: 0 }
    }

    /// How many arrays and objects are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Whether the next event of the innermost object is a key.
    pub(super) fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open::Object { key: None, .. }))
    }

    /// Where the key of the value to come stands.
    pub(super) fn key_position(&self) -> Option<Position> {
        match self.open.last() {
            Some(Open::Object { key: Some((_, position)), .. }) => Some(*position),
            _ => None,
        }
    }

    /// Counts nodes and bytes against the limits.
    pub(super) fn charge(&mut self, nodes: usize, bytes: usize, position: Position) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > MAX_NODES {
            return Err(self.error(position, format!("more than {MAX_NODES} values, aliases expanded")));
        }
        if self.bytes > MAX_EXPANDED_BYTES {
            return Err(self.error(position, format!("more than {MAX_EXPANDED_BYTES} bytes, aliases expanded")));
        }
        Ok(())
    }

    /// An error at a position.
    pub(super) fn error(&self, position: Position, message: String) -> SyntaxError {
        SyntaxError { position, pointer: self.pointer(), message }
    }

    /// Notes an error that does not keep the text from having a tree.
    pub(super) fn note(&mut self, position: Position, message: String) {
        let error = self.error(position, message);
        self.errors.push(error);
    }

    /// The pointer of the value to come; in an object without a key yet, that of the object.
    fn pointer(&self) -> String {
        self.open.iter().fold(String::new(), |pointer, open| match open {
            Open::Array { items, .. } => pointer_join(&pointer, &items.len().to_string()),
            Open::Object { key: Some((key, _)), .. } => pointer_join(&pointer, key),
            Open::Object { key: None, .. } => pointer,
        })
    }

    pub(super) fn begin_array(&mut self, position: Position) -> Result<(), SyntaxError> {
        self.begin(Open::Array { position, items: Vec::new() }, position)
    }

    pub(super) fn begin_object(&mut self, position: Position) -> Result<(), SyntaxError> {
        self.begin(Open::Object { position, members: Vec::new(), key: None }, position)
    }

    fn begin(&mut self, open: Open, position: Position) -> Result<(), SyntaxError> {
        self.charge(1, 0, position)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(position, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(open);
        Ok(())
    }

    pub(super) fn key(&mut self, text: String, position: Position) -> Result<(), SyntaxError> {
        self.charge(0, text.len(), position)?;
        if let Some(Open::Object { key, .. }) = self.open.last_mut() {
            *key = Some((text, position));
        }
        Ok(())
    }

    /// A string, number, boolean or null.
    pub(super) fn scalar(&mut self, content: Content, position: Position) -> Result<(), SyntaxError> {
        let bytes = if let Content::Text(text) = &content { text.len() } else { 0 };
        self.charge(1, bytes, position)?;
        self.add(Node { position, content });
        Ok(())
    }

    /// A value that is whole already and was charged for.
    pub(super) fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::Array { items, .. }) => items.push(node),
            Some(Open::Object { members, key, .. }) => {
                if let Some((key, position)) = key.take() {
                    members.push(Member { key, position, value: node });
                }
            }
        }
    }

    /// Ends the innermost array or object and gives it back; the caller adds it.
    pub(super) fn end(&mut self) -> Option<Node> {
        if let Some(Open::Object { members, .. }) = self.open.last_mut() {
            let members = std::mem::take(members);
            let unique = self.drop_duplicates(members);
            if let Some(Open::Object { members, .. }) = self.open.last_mut() {
                *members = unique;
            }
        }
        Some(match self.open.pop()? {
            Open::Array { position, items } => Node { position, content: Content::Array(items) },
            Open::Object { position, members, .. } => Node { position, content: Content::Object(members) },
        })
    }

    /// Keeps the first of members with the same key and notes the others.
    fn drop_duplicates(&mut self, members: Vec<Member>) -> Vec<Member> {
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by(|left, right| (&members[*left].key, left).cmp(&(&members[*right].key, right)));
        let mut repeated = vec![false; members.len()];
        for pair in order.windows(2) {
            if members[pair[0]].key == members[pair[1]].key {
                repeated[pair[1]] = true;
            }
        }
        let container = self.pointer();
        let mut kept = Vec::with_capacity(members.len());
        for (member, is_repeated) in members.into_iter().zip(repeated) {
            if is_repeated {
                let message = format!("the key `{}` stands here a second time", member.key);
                let pointer = pointer_join(&container, &member.key);
                self.errors.push(SyntaxError { position: member.position, pointer, message });
            } else {
                kept.push(member);
            }
        }
        kept
    }

    pub(super) fn finish(mut self) -> Option<Tree> {
        self.errors.sort_by_key(|error| error.position);
        self.root.map(|root| Tree { root, errors: self.errors })
    }
}

//! Problems of a file: what is wrong, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::source::Position;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted; the author should know.
    Warning,
}

/// One problem of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// JSON pointer of the value, or of the object that lacks something.
    pub pointer: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// What is wrong and, where possible, what would be right.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

impl Problem {
    pub(crate) fn new(pointer: String, position: Position, severity: Severity, message: String) -> Self {
        Self { pointer, line: position.line, column: position.column, message, severity }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(formatter, "{}:{}: {severity}: {} (at {place})", self.line, self.column, self.message)
    }
}

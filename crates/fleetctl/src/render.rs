//! Data on standard output: a table that fits the terminal, JSON or YAML. Talk goes to standard error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use fleet_core::{Error, ErrorKind};
use serde_json::Value;

/// Width where there is no terminal to ask.
const WIDTH_DEFAULT: u16 = 160;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

/// Prints `value` for programs, or what `table` makes for people.
pub(crate) fn data(format: Format, value: &Value, table: impl FnOnce() -> String) -> Result<(), Error> {
    let text = match format {
        Format::Table => table(),
        Format::Json => format!("{value:#}"),
        Format::Yaml => yaml(value)?,
    };
    line(&text)
}

/// Prints one of several values that come one after the other: JSON in one line each, YAML as documents.
pub(crate) fn item(format: Format, value: &Value, table: impl FnOnce() -> String) -> Result<(), Error> {
    let text = match format {
        Format::Table => table(),
        Format::Json => value.to_string(),
        Format::Yaml => format!("---\n{}", yaml(value)?),
    };
    line(&text)
}

/// Prints a workflow's output, which is data whatever the format.
pub(crate) fn output(format: Format, value: &Value) -> Result<(), Error> {
    data(format, value, || format!("{value:#}"))
}

/// Prints `text` and a line feed, unless it ends with one.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(end.as_bytes()));
    match written.and_then(|()| stdout.flush()) {
        // Whoever reads has enough: `fleetctl job list | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Error::new(ErrorKind::Internal, "write to standard output").with_source(source)),
        Ok(()) => Ok(()),
    }
}

/// Says something to the person, on standard error.
pub(crate) fn say(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

fn yaml(value: &Value) -> Result<String, Error> {
    serde_saphyr::to_string(value)
        .map_err(|source| Error::new(ErrorKind::Internal, "write YAML").with_source(source.to_string()))
}

/// A table with `header` and `rows`, as wide as the terminal. Text from outside loses its control characters.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width())
        .set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| plain(&cell)));
    }
    table.trim_fmt()
}

/// Names and values below each other.
pub(crate) fn list(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{name:width$}  {}", plain(value))).collect();
    lines.join("\n")
}

/// `text` without what could steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() && character != '\n' { ' ' } else { character }).collect()
}

fn width() -> u16 {
    if io::stdout().is_terminal() {
        crossterm::terminal::size().map_or(WIDTH_DEFAULT, |(columns, _)| columns.max(40))
    } else {
        WIDTH_DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_lists_are_aligned_and_harmless() {
        let text = table(&["NAME", "STATE"], [vec!["a".to_owned(), "alive\u{1b}[2J".to_owned()]]);
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines.len(), 2);
        assert!(!text.contains('\u{1b}'));
        assert_eq!(list(&[("a", "1".to_owned()), ("long", "2".to_owned())]), "a     1\nlong  2");
    }

    #[test]
    fn yaml_keeps_nulls_and_strings_apart() {
        let value = serde_json::json!({"a": null, "b": "null", "c": [1, "2"]});
        let text = yaml(&value).unwrap();
        assert!(text.contains("a: null") && !text.contains("b: null"), "{text}");
    }
}

//! What comes from the command line and from files: bounded, checked, and refused with its name.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use fleet_core::limits::{CATALOG_BYTES_MAX, INPUT_BYTES_MAX, PRIORITY_MAX, PRIORITY_NORMAL, WORKFLOW_FILE_BYTES_MAX};
use fleet_core::{Error, ErrorKind};
use jiff::SignedDuration;
use serde_json::Value;

use crate::error::invalid;

/// What stands for standard input.
pub(crate) const STDIN: &str = "-";

/// The bytes of a workflow file; `-` is standard input.
pub(crate) fn read_workflow(file: &str) -> Result<Vec<u8>, Error> {
    read_bounded(file, WORKFLOW_FILE_BYTES_MAX, "workflow")
}

/// The input of a workflow: JSON text, `@FILE`, or `-`; `{}` if absent. Where the workflow itself comes from standard
/// input (`file` is `-`), the input cannot.
pub(crate) fn read_input(file: &str, flag: Option<&str>) -> Result<Value, Error> {
    let bytes = match flag {
        None => return Ok(Value::Object(serde_json::Map::new())),
        Some(STDIN) if file == STDIN => {
            return Err(invalid("the workflow and its input cannot both come from standard input"));
        }
        Some(STDIN) => read_bounded(STDIN, INPUT_BYTES_MAX, "input")?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => read_bounded(path, INPUT_BYTES_MAX, "input")?,
            None => text.as_bytes().to_vec(),
        },
    };
    serde_json::from_slice(&bytes).map_err(|source| {
        invalid("the input is not JSON")
            .with_source(source)
            .with_next_step("Quote it for the shell, or put it into a file: --input @input.json")
    })
}

/// The bytes of a file that `workflow export` wrote; `-` is standard input.
pub(crate) fn read_archive(file: &str) -> Result<Vec<u8>, Error> {
    // Every workflow of a full catalog, its text quoted for JSON.
    read_bounded(file, usize::try_from(8 * CATALOG_BYTES_MAX).unwrap_or(usize::MAX), "archive")
}

fn read_bounded(path: &str, bytes_max: usize, what: &str) -> Result<Vec<u8>, Error> {
    let failed = |source: io::Error| {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidInput,
        };
        Error::new(kind, format!("read the {what} {path}")).with_source(source)
    };
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + 1;
    if path == STDIN {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() > bytes_max {
        return Err(invalid(format!("the {what} {path} is larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// A duration such as `30s`, `1h 30m` or `PT30S`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| "use a duration such as 500ms, 30s, 5m or 1h30m".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a duration cannot be negative".to_owned())
}

/// A priority by number or word.
pub(crate) fn parse_priority(text: &str) -> Result<u32, String> {
    let number = match text {
        "low" => 5,
        "normal" => u32::from(PRIORITY_NORMAL),
        "high" => 15,
        "critical" => u32::from(PRIORITY_MAX),
        other => other.parse().unwrap_or(u32::MAX),
    };
    if number <= u32::from(PRIORITY_MAX) {
        Ok(number)
    } else {
        Err("use 0 to 20, or low, normal, high or critical".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_priorities() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("PT2S"), Ok(Duration::from_secs(2)));
        assert!(parse_duration("-3s").is_err() && parse_duration("soon").is_err() && parse_duration("7").is_err());
        assert_eq!((parse_priority("high"), parse_priority("0"), parse_priority("20")), (Ok(15), Ok(0), Ok(20)));
        assert!(parse_priority("21").is_err() && parse_priority("-1").is_err() && parse_priority("urgent").is_err());
    }

    #[test]
    fn inputs_come_from_text_or_file() {
        assert_eq!(read_input("f", None).unwrap(), serde_json::json!({}));
        assert_eq!(read_input("f", Some("[1]")).unwrap(), serde_json::json!([1]));
        assert_eq!(read_input("f", Some("{a:1}")).unwrap_err().kind, ErrorKind::InvalidInput);
        assert_eq!(read_input("f", Some("@/nowhere/x")).unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(read_input("-", Some("-")).unwrap_err().kind, ErrorKind::InvalidInput);
    }
}

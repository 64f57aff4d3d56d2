//! Every data schema of a file is compiled once: one that is not a JSON Schema, or that refers to another document, is
//! a problem of the file and not of the job that would need it.

use crate::dsl::reader::Reader;
use crate::expr::val::cut;

/// Longest part of a message that comes from the schema compiler, bytes.
const MESSAGE_BYTES_MAX: usize = 300;

/// Reports every schema that does not compile. Nothing is fetched.
pub(super) fn check(reader: &mut Reader) {
    for found in std::mem::take(&mut reader.schemas) {
        if let Err(error) = jsonschema::options().offline().build(&found.document) {
            let why = error.masked().to_string();
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { String::new() } else { format!(" (at {place} of the schema)") };
            let message = format!("not a valid JSON Schema: {}{place}", cut(&why, MESSAGE_BYTES_MAX));
            reader.problem_at(found.pointer, found.position, message);
        }
    }
}

//! JSON Schemas of data. References to other documents are refused: nothing is fetched.

use std::fmt;

use jsonschema::Validator;

use crate::dsl::resource::{SchemaContent, SchemaDefinition};
use crate::expr::Val;
use crate::expr::val::cut;

/// Problems listed in one message.
const LISTED_MAX: usize = 3;
/// Longest message about one problem.
const MESSAGE_BYTES_MAX: usize = 300;

/// A compiled schema.
pub(super) struct Schema(Box<Validator>);

impl fmt::Debug for Schema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Schema")
    }
}

impl Schema {
    pub(super) fn compile(schema: &SchemaDefinition) -> Result<Self, String> {
        let format = schema.format.as_deref().unwrap_or("json");
        if format != "json" && !format.starts_with("json:") {
            return Err(format!("the schema format `{format}` is not known; there is `json`"));
        }
        let SchemaContent::Document(document) = &schema.content else {
            return Err("a schema in another file cannot be used in this version".to_owned());
        };
        let built = jsonschema::options().offline().build(document);
        built.map(|validator| Self(Box::new(validator))).map_err(|error| {
            format!("the schema is not valid: {}", cut(&error.masked().to_string(), MESSAGE_BYTES_MAX))
        })
    }

    /// What is wrong with a value, if anything.
    pub(super) fn check(&self, value: &Val) -> Result<(), String> {
        let value = value.to_json();
        if self.0.is_valid(&value) {
            return Ok(());
        }
        let described = self.0.iter_errors(&value).take(LISTED_MAX).map(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "/" } else { &place };
            format!("{} at {place}", cut(&error.masked().to_string(), MESSAGE_BYTES_MAX))
        });
        Err(described.collect::<Vec<_>>().join("; "))
    }
}

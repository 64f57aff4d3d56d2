//! The errors that the interpreter itself raises.

use super::event::ErrorObject;

/// An expression failed, or gave something that cannot stand where it stands.
pub(super) fn expression(detail: impl Into<String>) -> ErrorObject {
    ErrorObject::standard("expression", 400, "Expression Error", detail)
}

/// Data does not fit its schema.
pub(super) fn validation(detail: impl Into<String>) -> ErrorObject {
    ErrorObject::standard("validation", 400, "Validation Error", detail)
}

/// The definition asks for something that cannot be.
pub(super) fn configuration(detail: impl Into<String>) -> ErrorObject {
    ErrorObject::standard("configuration", 400, "Configuration Error", detail)
}

/// A timeout passed.
pub(super) fn timeout(detail: impl Into<String>) -> ErrorObject {
    ErrorObject::standard("timeout", 408, "Timeout", detail)
}

/// A bound of the interpreter is reached.
pub(super) fn runtime(detail: impl Into<String>) -> ErrorObject {
    ErrorObject::standard("runtime", 500, "Runtime Error", detail)
}

/// The robot died while an effect was in flight that must not run twice.
pub(super) fn lost() -> ErrorObject {
    ErrorObject::standard("lost", 500, "Effect Lost", "the robot died while the effect was in flight")
}

//! Label and field selectors.
//!
//! In: the text of a query parameter or a `LabelSelector` object. Out: a selector that matches labels or fields, or the server's
//! error. Never: I/O.

mod field;
mod label;
mod lexer;
#[cfg(test)]
mod tests;

pub use field::FieldSelector;
pub use label::LabelSelector;

/// A text that is no selector; the message is the server's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SelectorError(pub String);

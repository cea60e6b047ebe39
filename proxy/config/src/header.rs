//! Changes to headers, as routes, virtual hosts and weighted clusters ask for them.

use crate::format::Format;
use std::sync::Arc;

/// What to do to request or response headers: removals first, then what is set, in order (as Envoy does).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// In the order of application.
    pub ops: Box<[HeaderOp]>,
}

impl HeaderOps {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderOp {
    /// Every value of this (lower-case) header goes away.
    Remove(Arc<str>),
    /// A value is set.
    Set(SetHeader),
}

/// A header that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetHeader {
    /// Lower-case name. `:path`, `:method` and other pseudo headers but `:authority`/`host` are refused at conversion.
    pub name: Arc<str>,
    /// The value.
    pub value: Format,
    /// What happens to values that are already there.
    pub append: HeaderAppend,
    /// Set even when the value is empty.
    pub keep_empty: bool,
}

/// What a set does to values that are already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderAppend {
    /// Another value beside them.
    Append,
    /// Nothing is done when there is one.
    AddIfAbsent,
    /// They are replaced; added when there is none.
    Overwrite,
    /// They are replaced; nothing is done when there is none.
    OverwriteIfExists,
}

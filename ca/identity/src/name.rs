//! The two Kubernetes names that make up an identity.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text_newtype;

/// The name of a Kubernetes namespace: a DNS label of RFC 1123, at most 63 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(Arc<str>);

/// The name of a Kubernetes service account: a DNS subdomain of RFC 1123, at most 253 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceAccount(Arc<str>);

/// Why a text is not a Kubernetes name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty: write the name of an existing object")]
    Empty,
    /// Longer than Kubernetes allows.
    #[error("the name has {length} bytes: at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// A character outside `a-z`, `0-9`, `-` (and `.` where a subdomain is allowed).
    #[error("the name holds {found:?}: only a-z, 0-9 and '-' (and '.' in service accounts) are allowed")]
    Character {
        /// The first offending character.
        found: char,
    },
    /// A label begins or ends with something else than a letter or digit.
    #[error("every part of the name must begin and end with a letter or a digit")]
    Edge,
}

impl Namespace {
    /// Checks a namespace name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check_length(text, 63)?;
        check_label(text)?;
        Ok(Self(text.into()))
    }
}

impl ServiceAccount {
    /// Checks a service account name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check_length(text, 253)?;
        text.split('.').try_for_each(check_label)?;
        Ok(Self(text.into()))
    }
}

text_newtype!(Namespace, NameError);
text_newtype!(ServiceAccount, NameError);

fn check_length(text: &str, max: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        length if length > max => Err(NameError::TooLong { length, max }),
        _ => Ok(()),
    }
}

fn check_label(label: &str) -> Result<(), NameError> {
    if let Some(found) = label.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::Character { found });
    }
    if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
        return Err(NameError::Edge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kubernetes_rules() {
        assert_eq!(Namespace::new(""), Err(NameError::Empty));
        assert_eq!(
            Namespace::new(&"n".repeat(64)),
            Err(NameError::TooLong { length: 64, max: 63 })
        );
        assert_eq!(Namespace::new("a.b"), Err(NameError::Character { found: '.' }));
        assert_eq!(Namespace::new("Upper"), Err(NameError::Character { found: 'U' }));
        assert_eq!(Namespace::new("-a"), Err(NameError::Edge));
        assert_eq!(ServiceAccount::new("a..b"), Err(NameError::Edge));
        assert_eq!(ServiceAccount::new("a/b"), Err(NameError::Character { found: '/' }));
        assert_eq!(
            ServiceAccount::new("builder.v1-2").map(String::from),
            Ok("builder.v1-2".to_owned())
        );
    }
}

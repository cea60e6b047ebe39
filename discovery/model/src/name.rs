//! Names and ids. Each is its own type, so that no function takes two strings of different meaning.
//!
//! All share their text by `Arc`, order by it and are cheap to clone.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mizzen_identity::Namespace;
use serde::Serialize;

/// Why a text is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("{what} is empty: write a name")]
    Empty {
        /// What kind of name.
        what: &'static str,
    },
    /// Longer than DNS or Kubernetes allow.
    #[error("{what} {text:?} is longer than {limit} characters: shorten it")]
    TooLong {
        /// What kind of name.
        what: &'static str,
        /// The text.
        text: String,
        /// The limit.
        limit: usize,
    },
    /// A character that this kind of name cannot have.
    #[error("{what} {text:?} has the character {character:?}: use lower-case letters, digits, '-' and '.'")]
    Character {
        /// What kind of name.
        what: &'static str,
        /// The text.
        text: String,
        /// The offending character.
        character: char,
    },
    /// `*` somewhere else than as the whole first label.
    #[error("host {text:?} has '*' in the wrong place: write '*' alone or as the first label, like '*.example.com'")]
    Wildcard {
        /// The text.
        text: String,
    },
    /// A label between dots that is empty, too long or has '-' at an end.
    #[error(
        "host {text:?} has the label {label:?}: each label needs 1 to 63 characters and a letter or digit at both ends"
    )]
    HostLabel {
        /// The text.
        text: String,
        /// The offending label.
        label: String,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is; only an empty one, or one with a character that no name has, is refused.
            ///
            /// # Errors
            /// When the text is empty, over 253 characters, or has white space, '|', '~', or a control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                plain($what, text.as_ref()).map(Self)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// The name of a Kubernetes object, without its namespace.
    ObjectName, "name"
);
name!(
    /// The name of a destination rule's subset.
    SubsetName, "subset"
);
name!(
    /// The name of a service's port, as `http-web`.
    PortName, "port name"
);
name!(
    /// The name of what owns a pod (the Deployment, not its ReplicaSet), as it shows in metrics.
    WorkloadName, "workload"
);
name!(
    /// The name of a credential that a gateway or a destination rule refers to (a Secret).
    CredentialName, "credential"
);

fn plain(what: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    const LIMIT: usize = 253; // RFC 1123 subdomain, what Kubernetes allows
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > LIMIT {
        return Err(NameError::TooLong {
            what,
            text: text.to_owned(),
            limit: LIMIT,
        });
    }
    // '|' and '~' separate the parts of cluster and node names.
    match text
        .chars()
        .find(|c| c.is_whitespace() || c.is_control() || matches!(c, '|' | '~'))
    {
        Some(character) => Err(NameError::Character {
            what,
            text: text.to_owned(),
            character,
        }),
        None => Ok(Arc::from(text)),
    }
}

/// Kubernetes labels, or what a selector asks of them.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<Arc<str>, Arc<str>>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| &**value)
    }

    /// Whether `labels` has all of these: what a selector does. An empty selector selects everything.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.0.get(key) == Some(value))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What kind of object a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[expect(missing_docs, reason = "the variants are the kinds of Kubernetes and Istio")]
pub enum Kind {
    ConfigMap,
    DestinationRule,
    EndpointSlice,
    Gateway,
    Namespace,
    Node,
    PeerAuthentication,
    Pod,
    Secret,
    Service,
    VirtualService,
}

impl Kind {
    /// The kind as users write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::DestinationRule => "DestinationRule",
            Self::EndpointSlice => "EndpointSlice",
            Self::Gateway => "Gateway",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Pod => "Pod",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::VirtualService => "VirtualService",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which object: kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
}

impl ObjectKey {
    /// Puts the three together.
    #[must_use]
    pub fn new(kind: Kind, namespace: Namespace, name: ObjectName) -> Self {
        Self { kind, namespace, name }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// When an object was created: seconds since 1970, UTC. Of two objects that say the same, the older one decides; of two
/// equally old ones, the one whose name sorts first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// Which namespaces see an object (`exportTo`).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ExportTo {
    /// All of them: `*`, or nothing said.
    #[default]
    All,
    /// These; the object's own (`.`) is written out. Empty: nobody sees it (`~`).
    Namespaces(BTreeSet<Namespace>),
}

impl ExportTo {
    /// Whether it is seen from there.
    #[must_use]
    pub fn visible_from(&self, namespace: &Namespace) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }
}

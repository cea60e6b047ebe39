//! Who a workload is: SPIFFE ids and trust domains.
//!
//! In: text from certificates, tokens and configuration. Out: checked values that can only hold an id that follows the
//! [SPIFFE ID standard](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md) and names a Kubernetes
//! service account, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//! Never: Kubernetes clients, certificates, clocks.
//!
//! ```
//! use mizzen_identity::SpiffeId;
//! let id: SpiffeId = "spiffe://cluster.local/ns/tutorial/sa/customer".parse()?;
//! assert_eq!(id.namespace(), "tutorial");
//! assert_eq!(id.service_account(), "customer");
//! # Ok::<(), mizzen_identity::SpiffeIdError>(())
//! ```

mod name;
mod spiffe_id;
mod trust_domain;

pub use name::{NameError, Namespace, ServiceAccount};
pub use spiffe_id::{MAX_SPIFFE_ID_BYTES, SpiffeId, SpiffeIdError};
pub use trust_domain::{MAX_TRUST_DOMAIN_BYTES, TrustDomain, TrustDomainError};

/// The trait impls that every checked name shares: text in through `FromStr` and serde, text out, comparable with text.
macro_rules! text_newtype {
    ($type:ident, $error:ty) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
        impl std::str::FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $type {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(&text)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}
pub(crate) use text_newtype;

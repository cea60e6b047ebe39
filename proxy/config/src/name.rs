//! Names of resources: one newtype each, over `Arc<str>`, so that a clone costs a counter and no function takes two
//! strings of different meaning.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name from its text.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text, without copying it.
            #[must_use]
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
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

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )*};
}

names! {
    /// A listener's name, for instance `0.0.0.0_9080` or `virtualInbound`.
    ListenerName
    /// A route configuration's name, for instance `9080` or `http.8080`.
    RouteConfigName
    /// A virtual host's name; as a resource of its own (VHDS) it is `<route config>/<authority>`.
    VirtualHostName
    /// A route's name, as it shows in access logs.
    RouteName
    /// A cluster's name, for instance `outbound|9080|v1|reviews.default.svc.cluster.local`.
    ClusterName
    /// The name of a secret that SDS (or the in-process certificate store) serves: `default` and `ROOTCA` are this
    /// workload's own certificate and the mesh's roots.
    SecretName
}

//! Resources by kind: type URLs, and the way in from bytes.

use crate::error::{ConfigError, Problems};
use crate::{Cluster, EndpointSet, Listener, RouteConfig, VirtualHost};
use std::fmt;
use std::sync::Arc;

/// The kinds of resources the proxy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS
    Cluster,
    /// EDS
    Endpoints,
    /// LDS
    Listener,
    /// RDS
    RouteConfig,
    /// VHDS
    VirtualHost,
}

impl Kind {
    /// All of them, in the order in which changes are applied without gaps (make before break).
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::RouteConfig,
        Self::VirtualHost,
    ];

    /// The xDS type URL.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfig => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        }
    }

    /// The kind of a type URL.
    #[must_use]
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// The word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Listener => "listener",
            Self::RouteConfig => "route_config",
            Self::VirtualHost => "virtual_host",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of one encoded resource.
///
/// * no problems: use the value, acknowledge;
/// * problems and a value: refuse (NACK) with the problems' text and keep the last good value; where there is none yet,
///   use this value, in which the wrong parts fail closed;
/// * problems and no value: refuse; there is nothing to use.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<T> {
    /// The checked value.
    pub value: Option<T>,
    /// What was wrong; empty when all is well.
    pub problems: Problems,
}

/// A type that comes from an xDS resource.
pub trait XdsType: Sized + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;

    /// Decodes and checks one resource. Never panics, whatever the bytes.
    fn decode(body: &[u8]) -> Outcome<Self>;

    /// The name inside the resource.
    fn resource_name(&self) -> &str;

    /// Wraps the value.
    fn wrap(value: Arc<Self>) -> Resource;

    /// The value in `resource`, when it is of this type.
    fn unwrap(resource: &Resource) -> Option<&Arc<Self>>;
}

/// A checked resource of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// CDS
    Cluster(Arc<Cluster>),
    /// EDS
    Endpoints(Arc<EndpointSet>),
    /// LDS
    Listener(Arc<Listener>),
    /// RDS
    RouteConfig(Arc<RouteConfig>),
    /// VHDS
    VirtualHost(Arc<VirtualHost>),
}

impl Resource {
    /// Decodes and checks one resource of `kind`.
    #[must_use]
    pub fn decode(kind: Kind, body: &[u8]) -> Outcome<Self> {
        fn wrapped<T: XdsType>(body: &[u8]) -> Outcome<Resource> {
            let Outcome { value, problems } = T::decode(body);
            Outcome {
                value: value.map(|value| T::wrap(Arc::new(value))),
                problems,
            }
        }
        match kind {
            Kind::Cluster => wrapped::<Cluster>(body),
            Kind::Endpoints => wrapped::<EndpointSet>(body),
            Kind::Listener => wrapped::<Listener>(body),
            Kind::RouteConfig => wrapped::<RouteConfig>(body),
            Kind::VirtualHost => wrapped::<VirtualHost>(body),
        }
    }

    /// A value that refuses all traffic, for a name of which only unusable resources have come: a listener that closes
    /// connections, routes that answer 503. `None` for kinds whose absence refuses by itself (no cluster, no endpoint).
    #[must_use]
    pub fn closed(kind: Kind, name: &str, why: &str) -> Option<Self> {
        let why: Arc<str> = why.into();
        match kind {
            Kind::Cluster | Kind::Endpoints => None,
            Kind::Listener => Some(Self::Listener(Arc::new(Listener::closed(name, why)))),
            Kind::RouteConfig => Some(Self::RouteConfig(Arc::new(RouteConfig::closed(name, why)))),
            Kind::VirtualHost => Some(Self::VirtualHost(Arc::new(VirtualHost::closed(name, why)))),
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_) => Kind::Cluster,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Listener(_) => Kind::Listener,
            Self::RouteConfig(_) => Kind::RouteConfig,
            Self::VirtualHost(_) => Kind::VirtualHost,
        }
    }

    /// The name inside the resource.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Cluster(value) => value.resource_name(),
            Self::Endpoints(value) => value.resource_name(),
            Self::Listener(value) => value.resource_name(),
            Self::RouteConfig(value) => value.resource_name(),
            Self::VirtualHost(value) => value.resource_name(),
        }
    }
}

impl<T> Outcome<T> {
    /// From a conversion that may fail as a whole and may have noted problems of parts.
    pub(crate) fn from_parts(result: Result<T, ConfigError>, mut problems: Problems) -> Self {
        match result {
            Ok(value) => Self {
                value: Some(value),
                problems,
            },
            Err(error) => {
                problems.push(error);
                Self { value: None, problems }
            }
        }
    }
}

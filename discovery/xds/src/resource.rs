//! What is served: resources encoded once, and the view of them that a stream's proxy has.

use std::{fmt, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use xxhash_rust::xxh3::xxh3_64;

/// The kinds of resource that discovery serves, ordered as they must reach a proxy: what is referred to comes before what
/// refers to it, so that a change never points at something the proxy does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoint,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    Route,
    /// `envoy.config.route.v3.VirtualHost` (VHDS).
    VirtualHost,
}

impl ResourceType {
    /// All kinds in the order in which additions and updates are sent (make before break).
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Route,
        Self::VirtualHost,
    ];

    /// The order in which removals are sent, after all additions: what refers goes before what is referred to.
    pub(crate) const REMOVAL: [Self; 5] = [
        Self::Listener,
        Self::Route,
        Self::VirtualHost,
        Self::Cluster,
        Self::Endpoint,
    ];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        }
    }

    /// The kind that a type URL names.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// The short name that metrics and `/debug/syncz` show (`cds`, `eds`, …).
    pub const fn short(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::VirtualHost => "vhds",
        }
    }
}

/// A resource's version: a hash of its content, so that equal content is never sent twice, not even across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The version of encoded content: xxh3-64 of its bytes.
    pub fn of(body: &[u8]) -> Self {
        Self(xxh3_64(body))
    }

    /// Reads a version from the wire; `None` if it was not written by us.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }

    pub(crate) const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    /// 16 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One named resource as it goes over the wire, or the knowledge that there is none of this name.
///
/// It is encoded when it is made and shared by every stream from then on: cloning means cloning the `Arc` around it.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    name: Arc<str>,
    version: Version,
    /// An encoded `envoy.service.discovery.v3.Resource`; empty when absent. The `Any` in it is its tail, see `any`.
    wrapped: Bytes,
    any_length: usize,
    /// The message in the `Any`, which is the tail of that.
    body_length: usize,
}

impl Resource {
    /// Encodes a resource. `name` is the name under which proxies ask for it; `aliases` are other names it answers to;
    /// `body` is the encoded message of `kind`.
    pub fn present(kind: ResourceType, name: &str, aliases: &[String], body: &[u8]) -> Self {
        let version = Version::of(body);
        let text = version.to_string();
        let any_length = field_length(1, kind.type_url().len()) + field_length(2, body.len());
        let total = field_length(3, name.len())
            + aliases.iter().map(|alias| field_length(4, alias.len())).sum::<usize>()
            + field_length(1, text.len())
            + field_length(2, any_length);
        let mut out = BytesMut::with_capacity(total);
        put_field(3, name.as_bytes(), &mut out);
        for alias in aliases {
            put_field(4, alias.as_bytes(), &mut out);
        }
        put_field(1, text.as_bytes(), &mut out);
        // The `Any` comes last so that state-of-the-world responses can share its bytes.
        encode_key(2, WireType::LengthDelimited, &mut out);
        encode_varint(any_length as u64, &mut out);
        put_field(1, kind.type_url().as_bytes(), &mut out);
        put_field(2, body, &mut out);
        Self {
            name: Arc::from(name),
            version,
            wrapped: out.freeze(),
            any_length,
            body_length: body.len(),
        }
    }

    /// The knowledge that nothing of this name exists.
    pub fn absent(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            version: Version(0),
            wrapped: Bytes::new(),
            any_length: 0,
            body_length: 0,
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its version; meaningless when absent.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether there is such a resource.
    pub fn is_present(&self) -> bool {
        !self.wrapped.is_empty()
    }

    /// How many bytes it takes on the wire.
    pub fn encoded_length(&self) -> usize {
        self.wrapped.len()
    }

    /// The encoded `envoy.service.discovery.v3.Resource` (delta).
    pub fn wrapped(&self) -> &Bytes {
        &self.wrapped
    }

    /// The encoded `google.protobuf.Any` (state of the world).
    pub fn any(&self) -> Bytes {
        self.wrapped.slice(self.wrapped.len().saturating_sub(self.any_length)..)
    }

    /// The encoded message itself.
    pub fn body(&self) -> Bytes {
        self.wrapped
            .slice(self.wrapped.len().saturating_sub(self.body_length)..)
    }

    /// Whether a proxy that has `self` would notice being sent `other`.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.is_present() == other.is_present() && self.version == other.version
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_present() {
            write!(f, "{}@{}", self.name, self.version)
        } else {
            write!(f, "{}@absent", self.name)
        }
    }
}

fn field_length(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

fn put_field(tag: u32, value: &[u8], out: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

/// All resources of one kind that a proxy gets without naming them, sorted by name. Shared by all proxies that see the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSet(Vec<Arc<Resource>>);

impl ResourceSet {
    /// The resources in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The resource of this name.
    pub fn find(&self, name: &str) -> Option<&Arc<Resource>> {
        let at = self.0.binary_search_by(|r| (**r.name()).cmp(name)).ok()?;
        self.0.get(at)
    }
}

impl FromIterator<Arc<Resource>> for ResourceSet {
    /// Sorts by name; of two with the same name the last stays; absent ones are left out.
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> Self {
        let mut all: Vec<_> = resources.into_iter().filter(|r| r.is_present()).collect();
        all.reverse();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all.dedup_by(|later, earlier| later.name() == earlier.name());
        all.shrink_to_fit();
        Self(all)
    }
}

/// What one proxy sees at one moment. Immutable: the next moment is another view, left in the stream's mailbox together
/// with the marks of what differs.
///
/// Calls are frequent and must be cheap (a lookup in a shared cache), and give the same answer every time.
pub trait View: Send + Sync + 'static {
    /// The resource of this name, which must be the resource's own name too; [`Resource::absent`] if there is none.
    fn resource(&self, kind: ResourceType, name: &str) -> Arc<Resource>;

    /// All resources of this kind that the proxy gets without naming them.
    fn wildcard(&self, kind: ResourceType) -> Arc<ResourceSet>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::{envoy::service::discovery::v3 as pb, google::protobuf::Any};
    use prost::Message as _;

    #[test]
    fn encoding_is_what_envoy_decodes() {
        for length in [0usize, 1, 100, 127, 128, 300, 16_384, 70_000] {
            let body = vec![7u8; length];
            let aliases = vec!["9080/reviews.shop".to_owned(), "9080/reviews.shop.svc".to_owned()];
            let ours = Resource::present(ResourceType::VirtualHost, "9080/reviews", &aliases, &body);
            let any = Any {
                type_url: ResourceType::VirtualHost.type_url().to_owned(),
                value: body.clone(),
            };
            let decoded = pb::Resource::decode(ours.wrapped().clone()).unwrap();
            assert_eq!(
                decoded,
                pb::Resource {
                    name: "9080/reviews".into(),
                    aliases,
                    version: Version::of(&body).to_string(),
                    resource: Some(any.clone()),
                    ..Default::default()
                }
            );
            assert_eq!(Any::decode(ours.any()).unwrap(), any);
            assert_eq!(ours.body(), body);
        }
    }

    #[test]
    fn version_survives_the_wire() {
        let version = Version::of(b"content");
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::parse("1"), None);
        assert_eq!(Version::parse("zzzzzzzzzzzzzzzz"), None);
    }

    #[test]
    fn set_is_sorted_and_keeps_the_last_of_a_name() {
        let make = |name: &str, body: &[u8]| Arc::new(Resource::present(ResourceType::Cluster, name, &[], body));
        let set: ResourceSet = [
            make("b", b"1"),
            make("a", b"2"),
            make("b", b"3"),
            Arc::new(Resource::absent("c")),
        ]
        .into_iter()
        .collect();
        let names: Vec<_> = set.iter().map(|r| (r.name().to_string(), r.version())).collect();
        assert_eq!(
            names,
            [("a".to_owned(), Version::of(b"2")), ("b".to_owned(), Version::of(b"3"))]
        );
        assert!(set.find("a").is_some() && set.find("c").is_none());
    }

    #[test]
    fn type_urls_are_those_of_the_messages() {
        use envoy_types::pb::envoy::config::{cluster, endpoint, listener, route};
        use prost::Name as _;
        assert_eq!(ResourceType::Cluster.type_url(), cluster::v3::Cluster::type_url());
        assert_eq!(
            ResourceType::Endpoint.type_url(),
            endpoint::v3::ClusterLoadAssignment::type_url()
        );
        assert_eq!(ResourceType::Listener.type_url(), listener::v3::Listener::type_url());
        assert_eq!(
            ResourceType::Route.type_url(),
            route::v3::RouteConfiguration::type_url()
        );
        assert_eq!(ResourceType::VirtualHost.type_url(), route::v3::VirtualHost::type_url());
    }
}

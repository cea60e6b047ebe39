//! What a route does: forward, redirect, answer.

use super::{Fraction, RetryPolicy};
use crate::header::HeaderOps;
use crate::name::ClusterName;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where and how a request is forwarded.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Where to.
    pub clusters: WeightedClusters,
    /// Status when the chosen cluster does not exist (503, 404 or 500).
    pub cluster_not_found_status: u16,
    /// From the end of the request to the end of the response, retries included; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Nothing moves for so long; `None`: as the connection says; zero: no limit.
    pub idle_timeout: Option<Duration>,
    /// Longest life of the request and its response, upgrades included; `None`: as the connection says.
    pub max_stream_duration: Option<Duration>,
    /// Longest `grpc-timeout` that is honoured; `None`: the header is not looked at; zero: no limit.
    pub max_grpc_timeout: Option<Duration>,
    /// Retries.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Change of the path.
    pub path_rewrite: PathRewrite,
    /// Change of the authority.
    pub host_rewrite: HostRewrite,
    /// The old authority is told in `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// What a consistent-hash balancer hashes.
    pub hash: Box<[HashPolicy]>,
    /// Copies are sent here too.
    pub mirrors: Box<[Mirror]>,
    /// High priority for circuit breakers.
    pub high_priority: bool,
    /// Upgrades allowed or forbidden, over what the connection says; lower-case names.
    pub upgrades: Box<[(Arc<str>, bool)]>,
}

/// Clusters, one of which is chosen by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedClusters {
    /// At least one.
    pub entries: Box<[WeightedCluster]>,
    /// Sum of the weights; never zero.
    pub total: u64,
}

/// One of several clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Its name.
    pub cluster: ClusterName,
    /// Its weight; zero: never chosen.
    pub weight: u32,
    /// Changes to the request, before the route's own.
    pub request_headers: HeaderOps,
    /// Changes to the response, before the route's own.
    pub response_headers: HeaderOps,
    /// A new authority.
    pub host: Option<Arc<str>>,
}

/// A change of the path. The query is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PathRewrite {
    /// None.
    #[default]
    None,
    /// What the route matched (exact path or prefix; the whole path for an expression) is replaced.
    Prefix(Arc<str>),
    /// Every match of the expression is replaced.
    Regex(Box<Substitution>),
    /// The whole path is replaced.
    Full(Arc<str>),
}

/// A replacement by expression.
#[derive(Clone)]
pub struct Substitution {
    /// What is replaced, wherever it matches.
    pub regex: regex::bytes::Regex,
    /// By what.
    pub parts: Box<[SubstitutionPart]>,
}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substitution")
            .field("regex", &self.regex.as_str())
            .field("parts", &self.parts)
            .finish()
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.parts == other.parts
    }
}

/// A piece of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubstitutionPart {
    /// Text.
    Text(Arc<str>),
    /// A group of the expression (`\1`); 0 is the whole match.
    Group(u8),
}

/// A change of the authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostRewrite {
    /// None.
    #[default]
    None,
    /// To this.
    To(Arc<str>),
    /// To the name of the chosen endpoint (clusters found by DNS).
    Endpoint,
    /// To the value of this request header, when there is one.
    Header(Arc<str>),
}

/// What a consistent-hash balancer hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPolicy {
    /// The source.
    pub on: HashOn,
    /// When this one gives a hash, the following are not looked at.
    pub terminal: bool,
}

/// Sources of a request's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header (lower-case name).
    Header(Arc<str>),
    /// A cookie; made when missing and a lifetime is given (zero: a session cookie).
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Lifetime of one that is made.
        ttl: Option<Duration>,
        /// Path of one that is made.
        path: Arc<str>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Arc<str>),
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where to.
    pub cluster: ClusterName,
    /// What share.
    pub fraction: Fraction,
    /// `-shadow` is not appended to the authority.
    pub keep_host: bool,
}

/// The client is sent elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// New scheme; `None`: as it was.
    pub scheme: Option<Arc<str>>,
    /// New host; `None`: as it was.
    pub host: Option<Arc<str>>,
    /// New port; `None`: as it was (dropped when the scheme changes away from its default).
    pub port: Option<u16>,
    /// Change of the path. `Full` may carry its own query, which then replaces the old.
    pub path: PathRewrite,
    /// The query is dropped.
    pub strip_query: bool,
}

/// An answer without an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Status.
    pub status: u16,
    /// Body, may be empty.
    pub body: Arc<[u8]>,
}

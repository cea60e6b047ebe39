//! What is done with a request.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use mizzen_model::{
    Body, Destination, DirectResponse, GatewayRef, HashKey, HeaderOps, HttpAction, HttpMatch, HttpRoute, Policy,
    Redirect, RedirectPort, RetryPolicy, Rewrite, RoutePathRewrite, Service, VirtualService, WeightedDestination,
};

use super::headers::{self, Ops};
use super::{filters, http_routes, matches};
use crate::proto::{ZERO, any, duration, metadata, number, regex, runtime_fraction, text};
use crate::view::View;

use route::route::Action;
use route::route_action::{ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy};

/// Where routes are in force: at which port of which gateways, or at the sidecars.
pub(super) struct Place<'a> {
    pub(super) view: &'a View<'a>,
    /// The port that clients address.
    pub(super) port: u16,
    pub(super) at: BTreeSet<GatewayRef>,
}

/// All requests to one cluster.
pub(super) fn everything_to(cluster: &str, operation: String, retries: Option<route::RetryPolicy>) -> route::Route {
    route::Route {
        name: "default".to_owned(),
        r#match: Some(matches::everything()),
        decorator: Some(route::Decorator {
            operation,
            ..Default::default()
        }),
        action: Some(Action::Route(route::RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
            timeout: duration(ZERO),
            retry_policy: retries,
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// All requests are refused: the mesh does not know where they want to go.
pub(super) fn refuse() -> route::Route {
    route::Route {
        r#match: Some(matches::everything()),
        action: Some(Action::DirectResponse(route::DirectResponseAction {
            status: 502,
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// How long the body of a direct response is.
pub(super) fn body_size(route: &route::Route) -> usize {
    let Some(Action::DirectResponse(direct)) = &route.action else {
        return 0;
    };
    match direct.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        Some(core::data_source::Specifier::InlineString(text)) => text.len(),
        Some(core::data_source::Specifier::InlineBytes(bytes)) => bytes.len(),
        _ => 0,
    }
}

impl Place<'_> {
    /// A service without routes of a user's.
    pub(super) fn to_service(&self, service: &Service) -> route::Route {
        let destination = Destination {
            host: service.host.clone(),
            subset: None,
            port: Some(self.port),
        };
        let cluster = self.view.cluster_of(&destination, self.port, false).to_string();
        let mut to = everything_to(
            &cluster,
            format!("{}:{}/*", service.host, self.port),
            retry_policy(&self.view.config().retries),
        );
        if let Some(Action::Route(action)) = &mut to.action {
            action.hash_policy = self.hash_policies([&destination]);
        }
        to
    }

    /// A virtual service's routes, in order. What is below one that takes everything is left out.
    pub(super) fn routes(&self, own: &VirtualService) -> Vec<route::Route> {
        let mut routes = Vec::new();
        for http in http_routes(self.view, own) {
            if http.matches.is_empty() {
                routes.push(self.route(own, &http, None));
                return routes;
            }
            for wanted in http.matches.iter().filter(|wanted| self.concerns(wanted)) {
                let route = self.route(own, &http, Some(wanted));
                let rest = takes_everything(&route);
                routes.push(route);
                if rest {
                    return routes;
                }
            }
        }
        routes
    }

    /// Whether a condition can hold for this proxy at all.
    fn concerns(&self, wanted: &HttpMatch) -> bool {
        wanted.port.is_none_or(|port| port == self.port)
            && wanted.source_labels.selects(self.view.labels())
            && wanted
                .source_namespace
                .as_ref()
                .is_none_or(|namespace| namespace == self.view.namespace())
            && wanted
                .gateways
                .as_ref()
                .is_none_or(|gateways| !gateways.is_disjoint(&self.at))
    }

    fn route(&self, own: &VirtualService, http: &HttpRoute, wanted: Option<&HttpMatch>) -> route::Route {
        let destinations = match &http.action {
            HttpAction::Forward(destinations) => destinations.as_slice(),
            HttpAction::Redirect(_) | HttpAction::Direct(_) | HttpAction::Delegate(_) => &[],
        };
        let sharing = sharing(destinations);
        let none = HeaderOps::default();
        // One destination alone: what it does to headers, the route does.
        let (request, response) = match sharing.as_slice() {
            [only] => (&only.headers.request, &only.headers.response),
            _ => (&none, &none),
        };
        let request = headers::ops(&http.headers.request, request);
        let response = headers::ops(&http.headers.response, response);
        let action = match &http.action {
            HttpAction::Forward(_) if sharing.is_empty() => Action::DirectResponse(direct(&DirectResponse {
                status: 503,
                body: None, // all weights are zero: the index refuses it, nothing gets a share
            })),
            HttpAction::Forward(_) => Action::Route(self.forward(http, &sharing, &request)),
            HttpAction::Redirect(redirect) => Action::Redirect(self.redirect(redirect)),
            HttpAction::Direct(response) => Action::DirectResponse(direct(response)),
            HttpAction::Delegate(_) => Action::DirectResponse(direct(&DirectResponse {
                status: 503,
                body: None,
            })),
        };
        let operation = sharing.first().map(|first| {
            let port = first.destination.port.unwrap_or(self.port);
            route::Decorator {
                operation: format!("{}:{port}/*", first.destination.host),
                ..Default::default()
            }
        });
        let names = [http.name.as_deref(), wanted.and_then(|wanted| wanted.name.as_deref())];
        let config = format!(
            "/apis/networking.istio.io/v1/namespaces/{}/virtual-service/{}",
            own.key.namespace, own.key.name
        );
        route::Route {
            name: names.into_iter().flatten().collect::<Vec<_>>().join("."),
            r#match: Some(wanted.map_or_else(matches::everything, matches::wanted)),
            stat_prefix: wanted
                .and_then(|wanted| wanted.stat_prefix.as_deref())
                .unwrap_or_default()
                .to_owned(),
            metadata: metadata(vec![("istio", vec![("config", text(config))])]),
            decorator: operation,
            typed_per_filter_config: filters::of(http),
            request_headers_to_add: request.add,
            request_headers_to_remove: request.remove,
            response_headers_to_add: response.add,
            response_headers_to_remove: response.remove,
            action: Some(action),
            ..Default::default()
        }
    }

    fn forward(&self, http: &HttpRoute, sharing: &[&WeightedDestination], request: &Ops) -> route::RouteAction {
        let name = |destination: &Destination| self.view.cluster_of(destination, self.port, false).to_string();
        let clusters = match sharing {
            [only] => ClusterSpecifier::Cluster(name(&only.destination)),
            several => ClusterSpecifier::WeightedClusters(route::WeightedCluster {
                clusters: several.iter().map(|weighted| self.share(weighted)).collect(),
                ..Default::default()
            }),
        };
        let mut action = route::RouteAction {
            cluster_specifier: Some(clusters),
            // no limit unless somebody sets one
            timeout: duration(http.timeout.unwrap_or(ZERO)),
            retry_policy: retry_policy(http.retries.as_ref().unwrap_or(&self.view.config().retries)),
            hash_policy: self.hash_policies(sharing.iter().map(|weighted| &weighted.destination)),
            request_mirror_policies: http
                .mirrors
                .iter()
                .map(|mirror| RequestMirrorPolicy {
                    cluster: name(&mirror.destination),
                    runtime_fraction: runtime_fraction(mirror.percent),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let authority = http.rewrite.as_ref().and_then(|rewrite| rewrite.authority.as_deref());
        let authority = authority.or(request.authority.as_deref());
        action.host_rewrite_specifier =
            authority.map(|authority| HostRewriteSpecifier::HostRewriteLiteral(authority.to_owned()));
        if let Some(Rewrite { uri: Some(uri), .. }) = &http.rewrite {
            match uri {
                RoutePathRewrite::Path(path) => action.prefix_rewrite = path.to_string(),
                RoutePathRewrite::Regex { pattern, substitution } => {
                    action.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
                        pattern: Some(regex(pattern)),
                        substitution: substitution.to_string(),
                    });
                }
            }
        }
        action
    }

    fn share(&self, weighted: &WeightedDestination) -> route::weighted_cluster::ClusterWeight {
        use route::weighted_cluster::cluster_weight::HostRewriteSpecifier;
        let none = HeaderOps::default();
        let request = headers::ops(&weighted.headers.request, &none);
        let response = headers::ops(&weighted.headers.response, &none);
        route::weighted_cluster::ClusterWeight {
            name: self
                .view
                .cluster_of(&weighted.destination, self.port, false)
                .to_string(),
            weight: number(weighted.weight),
            request_headers_to_add: request.add,
            request_headers_to_remove: request.remove,
            response_headers_to_add: response.add,
            response_headers_to_remove: response.remove,
            host_rewrite_specifier: request.authority.map(HostRewriteSpecifier::HostRewriteLiteral),
            ..Default::default()
        }
    }

    /// What of a request chooses its endpoint, for those destinations that ask for it.
    fn hash_policies<'d>(&self, destinations: impl IntoIterator<Item = &'d Destination>) -> Vec<HashPolicy> {
        let mut policies: Vec<HashPolicy> = Vec::new();
        for destination in destinations {
            let rules = self.view.rules(&destination.host);
            let policy = rules.policy(destination.subset.as_ref(), destination.port.unwrap_or(self.port));
            if let Some(Policy::Hash { key, .. }) = policy.load_balancer.map(|lb| lb.policy) {
                let policy = hash_policy(&key);
                if !policies.contains(&policy) {
                    policies.push(policy);
                }
            }
        }
        policies
    }

    fn redirect(&self, wanted: &Redirect) -> route::RedirectAction {
        use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
        let code = match wanted.status {
            302 => RedirectResponseCode::Found,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::MovedPermanently,
        };
        route::RedirectAction {
            host_redirect: wanted.authority.as_deref().unwrap_or_default().to_owned(),
            port_redirect: match wanted.port {
                Some(RedirectPort::Number(port)) => u32::from(port),
                Some(RedirectPort::FromRequest) => u32::from(self.port),
                Some(RedirectPort::FromScheme) | None => 0, // Envoy leaves it out then
            },
            scheme_rewrite_specifier: wanted
                .scheme
                .as_ref()
                .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
            path_rewrite_specifier: wanted.uri.as_ref().map(|uri| match uri {
                RoutePathRewrite::Path(path) => PathRewriteSpecifier::PathRedirect(path.to_string()),
                RoutePathRewrite::Regex { pattern, substitution } => {
                    PathRewriteSpecifier::RegexRewrite(matcher::RegexMatchAndSubstitute {
                        pattern: Some(regex(pattern)),
                        substitution: substitution.to_string(),
                    })
                }
            }),
            response_code: code.into(),
            ..Default::default()
        }
    }
}

/// The destinations that get a share: an only one gets all, whatever its weight.
fn sharing(destinations: &[WeightedDestination]) -> Vec<&WeightedDestination> {
    match destinations {
        [only] => vec![only],
        several => several.iter().filter(|weighted| weighted.weight > 0).collect(),
    }
}

fn takes_everything(route: &route::Route) -> bool {
    route
        .r#match
        .as_ref()
        .is_some_and(|wanted| *wanted == matches::everything())
}

fn direct(response: &DirectResponse) -> route::DirectResponseAction {
    use core::data_source::Specifier;
    let body = response.body.as_ref().map(|body| match body {
        Body::Text(text) => Specifier::InlineString(text.to_string()),
        Body::Bytes(bytes) => Specifier::InlineBytes(bytes.to_vec()),
    });
    // an empty inline body is one that Envoy refuses
    let empty = |body: &Specifier| match body {
        Specifier::InlineString(text) => text.is_empty(),
        Specifier::InlineBytes(bytes) => bytes.is_empty(),
        _ => false,
    };
    let body = body.filter(|body| !empty(body));
    route::DirectResponseAction {
        status: u32::from(response.status),
        body: body.map(|body| core::DataSource {
            specifier: Some(body),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn hash_policy(key: &HashKey) -> HashPolicy {
    use route::route_action::hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter};
    let specifier = match key {
        HashKey::Header(name) => PolicySpecifier::Header(Header {
            header_name: name.to_string(),
            ..Default::default()
        }),
        HashKey::Cookie { name, path, ttl } => PolicySpecifier::Cookie(Cookie {
            name: name.to_string(),
            path: path.as_deref().unwrap_or_default().to_owned(),
            ttl: ttl.and_then(duration),
            ..Default::default()
        }),
        HashKey::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashKey::Query(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() }),
    };
    HashPolicy {
        policy_specifier: Some(specifier),
        ..Default::default()
    }
}

fn retry_policy(wanted: &RetryPolicy) -> Option<route::RetryPolicy> {
    use route::retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate};
    if wanted.attempts == 0 {
        return None;
    }
    let previous = || RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
            PreviousHostsPredicate {},
        ))),
    };
    Some(route::RetryPolicy {
        retry_on: wanted.retry_on.to_string(),
        num_retries: number(wanted.attempts),
        per_try_timeout: wanted.per_try_timeout.filter(|time| *time > ZERO).and_then(duration),
        retriable_status_codes: wanted.status_codes.iter().copied().map(u32::from).collect(),
        retry_host_predicate: if wanted.other_hosts {
            vec![previous()]
        } else {
            Vec::new()
        },
        host_selection_retry_max_attempts: if wanted.other_hosts { 5 } else { 0 },
        retry_back_off: wanted.backoff.filter(|time| *time > ZERO).map(|time| RetryBackOff {
            base_interval: duration(time),
            max_interval: duration(time.saturating_mul(10)), // as Envoy does by itself
        }),
        ..Default::default()
    })
}

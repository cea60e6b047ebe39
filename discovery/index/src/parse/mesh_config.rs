//! The mesh configuration: the part of Istio's MeshConfig that is acted on, and below `mizzen` what it has no word for.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use mizzen_model::{
    AccessLog, AccessLogEncoding, DataPlane, MeshConfig, ObjectName, OutboundPolicy, Service, TrustDomain,
};
use serde_json::Value;

use super::resilience::retry_on;
use crate::diagnostic::Diagnostic;
use crate::error::Reason;
use crate::facts;
use crate::reader::{Reader, parse_duration};
use crate::settings::{Membership, Settings};

/// The configuration that a mesh has, and what is wrong with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// The configuration; where the text is wrong or says nothing, the default.
    pub config: MeshConfig,
    /// Which namespaces are in the mesh.
    pub membership: Membership,
    /// The services of the mesh's own gateways, whether they exist at the moment or not; they are in the mesh's own namespace.
    pub gateways: Vec<Arc<Service>>,
    /// What is wrong. Never keeps the rest from being acted on: a mesh without configuration helps nobody.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the text of a mesh configuration.
#[must_use]
pub fn mesh_config(yaml: &str, settings: &Settings) -> Configured {
    let mut config = settings.defaults.clone();
    let mut reader = Reader::new(settings.root_namespace(), &settings.defaults.cluster_domain);
    let r = &mut reader;
    let root: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| {
        let why = mizzen_crds::yaml::reason(&error, 1);
        r.refuse(Reason::Yaml { why });
        Value::Null
    });
    if let Some(text) = string(r, &root, "trustDomain") {
        config.trust_domain = trust_domain(r, "trustDomain", text).unwrap_or(config.trust_domain);
    }
    if let Some(Value::Array(aliases)) = root.get("trustDomainAliases") {
        let aliases: Vec<String> = aliases.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        config.trust_domain_aliases = r.each("trustDomainAliases", &aliases, |r, text| trust_domain(r, "", text));
    }
    if let Some(auto) = root.get("enableAutoMtls").and_then(Value::as_bool) {
        config.auto_mtls = auto;
    }
    if let Some(policy) = root.get("outboundTrafficPolicy") {
        r.inside("outboundTrafficPolicy", |r| match string(r, policy, "mode") {
            None => {}
            Some("ALLOW_ANY") => config.outbound_policy = OutboundPolicy::AllowAny,
            Some("REGISTRY_ONLY") => config.outbound_policy = OutboundPolicy::RegistryOnly,
            Some(text) => {
                let reason = Reason::Unknown {
                    text: text.to_owned(),
                    allowed: "ALLOW_ANY or REGISTRY_ONLY",
                };
                r.refuse_at("mode", reason);
                // Whoever restricts outbound traffic in words we do not know wants it restricted.
                config.outbound_policy = OutboundPolicy::RegistryOnly;
            }
        });
    }
    if let Some(timeout) = duration(r, &root, "connectTimeout").filter(|timeout| !timeout.is_zero()) {
        config.connect_timeout = timeout;
    }
    if let Some(timeout) = duration(r, &root, "protocolDetectionTimeout") {
        config.protocol_detection_timeout = timeout;
    }
    if let Some(access_log) = access_log(r, &root) {
        config.access_log = access_log;
    }
    if let Some(policy) = root.get("defaultHttpRetryPolicy") {
        r.inside("defaultHttpRetryPolicy", |r| {
            if let Some(attempts) = policy.get("attempts").and_then(Value::as_u64) {
                config.retries.attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            }
            if let Some(text) = string(r, policy, "retryOn") {
                (config.retries.retry_on, config.retries.status_codes) = retry_on(r, text);
            }
            config.retries.per_try_timeout = duration(r, policy, "perTryTimeout").or(config.retries.per_try_timeout);
        });
    }
    let mut membership = settings.membership;
    let mut gateways = Vec::new();
    if let Some(own) = root.get("mizzen") {
        r.inside("mizzen", |r| {
            match string(r, own, "mode") {
                None => {}
                Some("ClusterWide") => membership = Membership::All,
                Some("MultiTenant") => membership = Membership::Labelled,
                Some(text) => {
                    let reason = Reason::Unknown {
                        text: text.to_owned(),
                        allowed: "ClusterWide or MultiTenant",
                    };
                    r.refuse_at("mode", reason);
                }
            }
            match string(r, own, "dataPlane") {
                None => {}
                Some("native") => config.data_plane = DataPlane::Native,
                Some("envoy") => config.data_plane = DataPlane::Envoy,
                Some(text) => {
                    r.refuse_at(
                        "dataPlane",
                        Reason::Unknown {
                            text: text.to_owned(),
                            allowed: "native or envoy",
                        },
                    );
                }
            }
            if let Some(text) = string(r, own, "clusterId").filter(|text| !text.is_empty()) {
                config.cluster_id = Arc::from(text);
            }
            if let Some(Value::Array(items)) = own.get("gateways") {
                gateways = r.each("gateways", items, |r, item| gateway(r, item, settings));
            }
        });
    }
    let mut diagnostics: Vec<_> = reader.errors.iter().map(crate::error::Invalid::diagnostic).collect();
    diagnostics.extend(reader.warnings);
    Configured {
        config,
        membership,
        gateways,
        diagnostics,
    }
}

/// The access log, if anything is said of it; an empty file name switches it off.
fn access_log(r: &mut Reader<'_>, root: &Value) -> Option<Option<AccessLog>> {
    let path = string(r, root, "accessLogFile")?;
    if path.is_empty() {
        return Some(None);
    }
    let encoding = match string(r, root, "accessLogEncoding") {
        None | Some("TEXT") => AccessLogEncoding::Text,
        Some("JSON") => AccessLogEncoding::Json,
        Some(text) => {
            r.refuse_at(
                "accessLogEncoding",
                Reason::Unknown {
                    text: text.to_owned(),
                    allowed: "TEXT or JSON",
                },
            );
            AccessLogEncoding::Text
        }
    };
    let format = string(r, root, "accessLogFormat")
        .filter(|format| !format.is_empty())
        .map(Arc::from);
    Some(Some(AccessLog {
        path: Arc::from(path),
        encoding,
        format,
    }))
}

/// A gateway's Service, as far as it leads to the gateway: its name, selector and ports.
fn gateway(r: &mut Reader<'_>, raw: &Value, settings: &Settings) -> Option<Arc<Service>> {
    let raw = serde_json::from_value::<core::Service>(raw.clone()).map_err(|error| Reason::Shape(error.to_string()));
    let raw = r.take("", raw)?;
    let name = r.take("metadata.name", ObjectName::new(raw.metadata.name.as_deref()?))?;
    let (root, domain) = (settings.root_namespace(), &settings.defaults.cluster_domain);
    facts::service::shared(&raw, root, &name, domain)
}

fn trust_domain(r: &mut Reader<'_>, field: &str, text: &str) -> Option<TrustDomain> {
    let domain = TrustDomain::new(text).map_err(|error| Reason::TrustDomain {
        text: text.to_owned(),
        why: error.to_string(),
    });
    r.take(field, domain)
}

fn string<'v>(r: &mut Reader<'_>, parent: &'v Value, field: &str) -> Option<&'v str> {
    match parent.get(field)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        _ => {
            r.refuse_at(field, Reason::Shape("must be text".to_owned()));
            None
        }
    }
}

fn duration(r: &mut Reader<'_>, parent: &Value, field: &str) -> Option<Duration> {
    let text = string(r, parent, field)?;
    r.take(
        field,
        parse_duration(text).ok_or_else(|| Reason::Duration { text: text.to_owned() }),
    )
}

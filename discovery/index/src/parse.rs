//! Raw kinds become the checked types of the model. The one validator: the index and the webhook both call this.
//!
//! Everything that is wrong with an object is told at once. An object with any error is refused as a whole, so a proxy
//! never runs half of what was meant.

mod destination_rule;
mod gateway;
mod http;
mod http_action;
mod load_balancer;
mod mesh_config;
mod peer_authentication;
pub(crate) mod regex;
mod resilience;
mod stream;
mod virtual_service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mizzen_crds as crds;
use mizzen_model as model;
use mizzen_model::{Kind, Namespace, ObjectKey, ObjectName};

pub use mesh_config::mesh_config;

use crate::diagnostic::Diagnostic;
use crate::error::{Invalid, Reason, Rejection};
use crate::reader::{Reader, bad_name};

/// An object that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<T> {
    /// The checked form.
    pub value: T,
    /// What deserves a second look.
    pub warnings: Vec<Diagnostic>,
}

/// Checks a Gateway.
///
/// # Errors
/// Everything that is wrong with it.
pub fn gateway(raw: &crds::Gateway, cluster_domain: &str) -> Result<Accepted<model::Gateway>, Rejection> {
    checked(Kind::Gateway, &raw.metadata, cluster_domain, |r, key| {
        gateway::read(r, key, raw)
    })
}

/// Checks a VirtualService.
///
/// # Errors
/// Everything that is wrong with it.
pub fn virtual_service(
    raw: &crds::VirtualService,
    cluster_domain: &str,
) -> Result<Accepted<model::VirtualService>, Rejection> {
    checked(Kind::VirtualService, &raw.metadata, cluster_domain, |r, key| {
        virtual_service::read(r, key, raw)
    })
}

/// Checks a DestinationRule.
///
/// # Errors
/// Everything that is wrong with it.
pub fn destination_rule(
    raw: &crds::DestinationRule,
    cluster_domain: &str,
) -> Result<Accepted<model::DestinationRule>, Rejection> {
    checked(Kind::DestinationRule, &raw.metadata, cluster_domain, |r, key| {
        destination_rule::read(r, key, raw)
    })
}

/// Checks a PeerAuthentication.
///
/// # Errors
/// Everything that is wrong with it.
pub fn peer_authentication(
    raw: &crds::PeerAuthentication,
    cluster_domain: &str,
) -> Result<Accepted<model::PeerAuthentication>, Rejection> {
    checked(Kind::PeerAuthentication, &raw.metadata, cluster_domain, |r, key| {
        peer_authentication::read(r, key, raw)
    })
}

/// What is in force instead of a PeerAuthentication that is refused: nothing but mutual TLS, for the workloads it names as
/// far as that can be read. A bad policy denies.
pub(crate) fn strict_instead(raw: &crds::PeerAuthentication, key: ObjectKey) -> model::PeerAuthentication {
    let namespace = key.namespace.clone();
    let mut reader = Reader::new(&namespace, "");
    let selector = peer_authentication::selector(&mut reader, raw);
    model::PeerAuthentication {
        created: crate::reader::created(&raw.metadata),
        key,
        selector: if reader.errors.is_empty() { selector } else { None },
        mode: Some(model::MtlsMode::Strict),
        ports: std::collections::BTreeMap::new(),
    }
}

/// The key of an object; an object without a namespace (a file on disk) is taken to be in `default`.
pub(crate) fn key_of(kind: Kind, metadata: &ObjectMeta) -> Result<ObjectKey, Rejection> {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    // A name may still have to be made by the API server.
    let name = metadata
        .name
        .as_deref()
        .or(metadata.generate_name.as_deref())
        .unwrap_or_default();
    let object = format!("{kind} {namespace}/{name}");
    let name = ObjectName::new(name).map_err(|error| bad_name(&object, error))?;
    let namespace = Namespace::new(namespace).map_err(|why| Rejection {
        object,
        errors: vec![Invalid {
            field: "metadata.namespace".to_owned(),
            reason: Reason::Namespace {
                text: namespace.to_owned(),
                why,
            },
        }],
    })?;
    Ok(ObjectKey::new(kind, namespace, name))
}

fn checked<T>(
    kind: Kind,
    metadata: &ObjectMeta,
    cluster_domain: &str,
    read: impl FnOnce(&mut Reader<'_>, ObjectKey) -> Option<T>,
) -> Result<Accepted<T>, Rejection> {
    let key = key_of(kind, metadata)?;
    let namespace = key.namespace.clone();
    let object = key.to_string();
    let mut reader = Reader::new(&namespace, cluster_domain);
    let value = reader.inside("spec", |r| read(r, key));
    match value {
        Some(value) if reader.errors.is_empty() => Ok(Accepted {
            value,
            warnings: reader.warnings,
        }),
        _ => Err(Rejection {
            object,
            errors: reader.errors,
        }),
    }
}

#[cfg(test)]
mod tests;

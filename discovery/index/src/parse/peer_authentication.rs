//! PeerAuthentication.

use std::collections::BTreeMap;

use mizzen_crds as crds;
use mizzen_crds::security::peer_authentication as pa;
use mizzen_model::{Labels, MtlsMode, ObjectKey, PeerAuthentication};

use crate::error::Reason;
use crate::reader::{Reader, created};

pub(super) fn read(r: &mut Reader<'_>, key: ObjectKey, raw: &crds::PeerAuthentication) -> Option<PeerAuthentication> {
    let spec = &raw.spec;
    let selector = selector(r, raw);
    let mut ports = BTreeMap::new();
    for (text, setting) in &spec.port_level_mtls {
        let field = format!("portLevelMtls.{text}");
        match text.parse::<u32>() {
            Ok(number) => {
                if let Some(port) = r.port(&field, Some(number)) {
                    ports.insert(port, mode(Some(setting)));
                }
            }
            Err(_) => r.refuse_at(&field, Reason::Port { number: text.clone() }),
        }
    }
    if !spec.port_level_mtls.is_empty() && selector.is_none() {
        r.refuse_at("portLevelMtls", Reason::PortsWithoutSelector);
    }
    Some(PeerAuthentication {
        created: created(&raw.metadata),
        key,
        selector,
        mode: mode(spec.mtls.as_ref()),
        ports,
    })
}

/// The pods it is for; none, that is all of the namespace, also if no label is given.
pub(super) fn selector(r: &mut Reader<'_>, raw: &crds::PeerAuthentication) -> Option<Labels> {
    let labels = &raw.spec.selector.as_ref()?.match_labels;
    let labels = r.inside("selector", |r| r.labels("matchLabels", labels));
    (!labels.is_empty()).then_some(labels)
}

fn mode(raw: Option<&pa::MutualTls>) -> Option<MtlsMode> {
    match raw?.mode? {
        pa::MutualTlsMode::Unset => None,
        pa::MutualTlsMode::Disable => Some(MtlsMode::Disable),
        pa::MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        pa::MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}

//! Services.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mizzen_model::{
    ExportTo, Host, Namespace, ObjectName, PortName, Protocol, Resolution, Service, ServicePort, TargetPort,
};

use super::{labels, port};
use crate::reader::{created, export_to};

/// Who sees a service; names separated by commas.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// A service of the mesh. None for one that only names another host (ExternalName): its clients ask DNS for that host and
/// call it under its own name.
pub(crate) fn service(raw: &core::Service, namespace: &Namespace, name: &ObjectName, domain: &str) -> Option<Service> {
    let spec = raw.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let host = Host::of_service(name, namespace, domain).ok()?;
    let single = spec.cluster_ip.iter();
    let several = spec.cluster_ips.iter().flatten();
    let mut addresses: Vec<IpAddr> = several.chain(single).filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let mut ports: Vec<ServicePort> = spec.ports.iter().flatten().filter_map(service_port).collect();
    ports.sort_by_key(|port| (port.number, port.protocol));
    // A port may be there for TCP and for UDP; the mesh carries the former, which sorts first but for UDP itself.
    ports.dedup_by(|later, earlier| {
        let same = later.number == earlier.number;
        if same && earlier.protocol == Protocol::Udp {
            std::mem::swap(later, earlier);
        }
        same
    });
    let selector = labels(spec.selector.as_ref());
    Some(Service {
        host,
        namespace: namespace.clone(),
        name: name.clone(),
        addresses,
        resolution: if headless {
            Resolution::Headless
        } else {
            Resolution::Endpoints
        },
        ports,
        selector: (!selector.is_empty()).then_some(selector),
        export_to: seen_by(raw, namespace),
        created: created(&raw.metadata),
    })
}

fn seen_by(raw: &core::Service, namespace: &Namespace) -> ExportTo {
    let annotation = raw
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(EXPORT_TO));
    let names = annotation
        .into_iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|text| !text.is_empty());
    export_to(names, namespace, |_, _, _| {})
}

fn service_port(raw: &core::ServicePort) -> Option<ServicePort> {
    let number = port(raw.port)?;
    let name = raw.name.as_deref().filter(|name| !name.is_empty());
    let target = match &raw.target_port {
        None => TargetPort::Number(number),
        Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(port(*target)?),
        Some(IntOrString::String(text)) => match text.parse() {
            Ok(target) => TargetPort::Number(target),
            Err(_) => TargetPort::Name(PortName::new(text).ok()?),
        },
    };
    Some(ServicePort {
        number,
        name: name.and_then(|name| PortName::new(name).ok()),
        target,
        protocol: protocol(number, name, raw.protocol.as_deref(), raw.app_protocol.as_deref())?,
    })
}

/// What is spoken on a port: by its `appProtocol`, else by the part of its name before the first `-`, as
/// [Istio selects protocols](https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/).
/// None for transports that the mesh knows nothing of.
pub(crate) fn protocol(
    number: u16,
    name: Option<&str>,
    transport: Option<&str>,
    app: Option<&str>,
) -> Option<Protocol> {
    match transport {
        None | Some("TCP") => {}
        Some("UDP") => return Some(Protocol::Udp),
        Some(_) => return None,
    }
    match app {
        Some("kubernetes.io/h2c") => return Some(Protocol::Http2),
        Some("kubernetes.io/ws") => return Some(Protocol::Http),
        Some("kubernetes.io/wss") => return Some(Protocol::Https),
        _ => {}
    }
    let text = app.or(name).unwrap_or_default().to_ascii_lowercase();
    if text.starts_with("grpc-web") {
        return Some(Protocol::GrpcWeb);
    }
    Some(match text.split('-').next().unwrap_or_default() {
        "http" => Protocol::Http,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" => Protocol::Https,
        "tls" => Protocol::Tls,
        "tcp" => Protocol::Tcp,
        "mongo" => Protocol::Mongo,
        "mysql" => Protocol::Mysql,
        "redis" => Protocol::Redis,
        "udp" => Protocol::Udp,
        // Server-first protocols, where waiting for the client's first bytes would wait for ever: SMTP, DNS, MySQL, MongoDB.
        _ if matches!(number, 25 | 53 | 3306 | 27017) => Protocol::Tcp,
        _ => Protocol::Auto,
    })
}

/// The service as it is shared between snapshots.
pub(crate) fn shared(
    raw: &core::Service,
    namespace: &Namespace,
    name: &ObjectName,
    domain: &str,
) -> Option<Arc<Service>> {
    service(raw, namespace, name, domain).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    // C5
    #[test]
    fn protocol_by_app_protocol_then_name_then_well_known_number() {
        // number, name, transport, appProtocol
        type Case = (
            u16,
            Option<&'static str>,
            Option<&'static str>,
            Option<&'static str>,
            Option<Protocol>,
        );
        let cases: [Case; 20] = [
            (80, Some("http"), None, None, Some(Protocol::Http)),
            (80, Some("http-web"), Some("TCP"), None, Some(Protocol::Http)),
            (80, Some("HTTP2-x"), None, None, Some(Protocol::Http2)),
            (80, Some("grpc"), None, None, Some(Protocol::Grpc)),
            (80, Some("grpc-web-front"), None, None, Some(Protocol::GrpcWeb)),
            (80, Some("grpc-other"), None, None, Some(Protocol::Grpc)),
            (443, Some("https"), None, None, Some(Protocol::Https)),
            (443, Some("tls-x"), None, None, Some(Protocol::Tls)),
            (80, Some("tcp"), None, Some("http"), Some(Protocol::Http)),
            (80, Some("http"), None, Some("tcp"), Some(Protocol::Tcp)),
            (80, Some("http"), None, Some("kubernetes.io/h2c"), Some(Protocol::Http2)),
            (80, Some("web"), None, Some("kubernetes.io/ws"), Some(Protocol::Http)),
            (80, Some("http"), None, Some("example.com/own"), Some(Protocol::Auto)),
            (80, Some("web"), None, None, Some(Protocol::Auto)),
            (80, Some("httpx"), None, None, Some(Protocol::Auto)),
            (80, None, None, None, Some(Protocol::Auto)),
            (3306, None, None, None, Some(Protocol::Tcp)),
            (3306, Some("mysql"), None, None, Some(Protocol::Mysql)),
            (80, Some("http"), Some("UDP"), None, Some(Protocol::Udp)),
            (80, Some("http"), Some("SCTP"), None, None),
        ];
        for (number, name, transport, app, expected) in cases {
            assert_eq!(
                protocol(number, name, transport, app),
                expected,
                "{number} {name:?} {transport:?} {app:?}"
            );
        }
    }
}

//! Gateway.

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_crds as crds;
use mizzen_crds::networking::gateway as gw;
use mizzen_model::{
    CredentialName, Gateway, Host, NamespaceFilter, ObjectKey, PortName, Server, ServerHost, ServerProtocol, ServerTls,
    ServerTlsMode,
};

use crate::error::{Caution, Reason};
use crate::reader::{Reader, created, text};

pub(super) fn read(r: &mut Reader<'_>, key: ObjectKey, raw: &crds::Gateway) -> Option<Gateway> {
    let spec = &raw.spec;
    if spec.servers.is_empty() {
        r.refuse_at(
            "servers",
            Reason::Missing {
                remedy: "write at least one server with port and hosts",
            },
        );
    }
    let mut names = BTreeSet::new();
    let servers = r.each("servers", &spec.servers, |r, server| {
        if let Some(name) = text(server.name.as_ref())
            && !names.insert(name.clone())
        {
            let remedy = "give each server its own name, or none";
            r.refuse_at(
                "name",
                Reason::Duplicate {
                    name: name.to_string(),
                    remedy,
                },
            );
        }
        self::server(r, server)
    });
    let selector = r.labels("selector", &spec.selector);
    Some(Gateway {
        created: created(&raw.metadata),
        key,
        selector,
        servers,
    })
}

fn server(r: &mut Reader<'_>, raw: &gw::Server) -> Option<Server> {
    let (port, protocol, port_name) = r.inside("port", |r| {
        r.not_acted_on("targetPort", raw.port.target_port.is_some_and(|port| port > 0));
        let port = r.port("number", Some(raw.port.number));
        let protocol = protocol(&raw.port.protocol);
        if protocol.is_none() {
            let allowed = "HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, TCP or TLS";
            r.refuse_at(
                "protocol",
                Reason::Unknown {
                    text: raw.port.protocol.clone(),
                    allowed,
                },
            );
        }
        (port, protocol, r.take("name", PortName::new(&raw.port.name)))
    });
    if raw.hosts.is_empty() {
        r.refuse_at(
            "hosts",
            Reason::Missing {
                remedy: "name the hosts that are let in, or * for all",
            },
        );
    }
    let hosts = r.each("hosts", &raw.hosts, |r, text| server_host(r, text));
    let bind = raw.bind.as_ref().filter(|bind| !bind.is_empty()).and_then(|bind| {
        let allowed = "an IP address; Unix sockets are not supported";
        r.take(
            "bind",
            bind.parse().map_err(|_| Reason::Unknown {
                text: bind.clone(),
                allowed,
            }),
        )
    });
    r.not_acted_on("port.protocol", protocol.is_some_and(|protocol| !protocol.is_http()));
    r.not_acted_on("defaultEndpoint", raw.default_endpoint.is_some());
    let tls = raw
        .tls
        .as_ref()
        .map(|tls| r.inside("tls", |r| self::tls(r, tls, protocol)));
    if tls.is_none() && matches!(protocol, Some(ServerProtocol::Https | ServerProtocol::Tls)) {
        r.refuse_at(
            "tls",
            Reason::Missing {
                remedy: "write tls.mode and its certificate: the port speaks TLS",
            },
        );
    }
    Some(Server {
        name: text(raw.name.as_ref()),
        port: port?,
        port_name,
        protocol: protocol?,
        bind,
        hosts,
        tls,
    })
}

fn protocol(text: &str) -> Option<ServerProtocol> {
    Some(match text.to_ascii_uppercase().as_str() {
        "HTTP" => ServerProtocol::Http,
        "HTTP2" => ServerProtocol::Http2,
        "GRPC" => ServerProtocol::Grpc,
        "GRPC-WEB" => ServerProtocol::GrpcWeb,
        "HTTPS" => ServerProtocol::Https,
        "TLS" => ServerProtocol::Tls,
        "TCP" => ServerProtocol::Tcp,
        "MONGO" => ServerProtocol::Mongo,
        _ => return None,
    })
}

/// `host`, `*/host`, `./host` or `namespace/host`.
fn server_host(r: &mut Reader<'_>, text: &str) -> Option<ServerHost> {
    let (namespace, host) = match text.split_once('/') {
        None => (Some(NamespaceFilter::Any), text),
        Some(("*", host)) => (Some(NamespaceFilter::Any), host),
        Some((".", host)) => (Some(NamespaceFilter::Only(r.namespace.clone())), host),
        Some((namespace, host)) => (r.namespace_named("", namespace).map(NamespaceFilter::Only), host),
    };
    let host = r.take("", Host::new(host));
    Some(ServerHost {
        namespace: namespace?,
        host: host?,
    })
}

fn tls(r: &mut Reader<'_>, raw: &gw::ServerTlsSettings, protocol: Option<ServerProtocol>) -> ServerTls {
    let https_redirect = raw.https_redirect.unwrap_or(false);
    let speaks_tls = matches!(protocol, Some(ServerProtocol::Https | ServerProtocol::Tls));
    if protocol.is_some() && !speaks_tls {
        let only_redirects = gw::ServerTlsSettings {
            https_redirect: raw.https_redirect,
            ..Default::default()
        };
        if *raw != only_redirects {
            r.refuse(Reason::Needs {
                this: "TLS other than httpsRedirect",
                needs: "port.protocol HTTPS or TLS",
            });
        }
    }
    for (field, there) in [
        ("caCrl", raw.ca_crl.is_some()),
        ("caCertCredentialName", raw.ca_cert_credential_name.is_some()),
        ("verifyCertificateSpki", !raw.verify_certificate_spki.is_empty()),
        ("verifyCertificateHash", !raw.verify_certificate_hash.is_empty()),
        ("insecureSkipVerify", raw.insecure_skip_verify.is_some()),
    ] {
        r.not_acted_on(field, there);
    }
    let mode = speaks_tls.then(|| match raw.mode.unwrap_or_default() {
        gw::ServerTlsMode::Passthrough => ServerTlsMode::Passthrough,
        gw::ServerTlsMode::Simple => ServerTlsMode::Simple,
        gw::ServerTlsMode::Mutual => ServerTlsMode::Mutual,
        gw::ServerTlsMode::OptionalMutual => ServerTlsMode::OptionalMutual,
        gw::ServerTlsMode::AutoPassthrough => ServerTlsMode::AutoPassthrough,
        gw::ServerTlsMode::IstioMutual => ServerTlsMode::Mesh,
    });
    let mut credentials: Vec<CredentialName> = Vec::new();
    if let Some(name) = raw.credential_name.as_ref().filter(|name| !name.is_empty()) {
        credentials.extend(r.take("credentialName", CredentialName::new(name)));
    }
    credentials.extend(r.each("credentialNames", &raw.credential_names, |r, name| {
        r.take("", CredentialName::new(name))
    }));
    // The first pair of files; a second one, of another key type, is told below.
    let pair = raw.tls_certificates.first();
    r.not_acted_on("tlsCertificates[1]", raw.tls_certificates.len() > 1);
    let certificate_file = text(
        raw.server_certificate
            .as_ref()
            .or_else(|| pair?.server_certificate.as_ref()),
    );
    let key_file = text(raw.private_key.as_ref().or_else(|| pair?.private_key.as_ref()));
    let ca_file = text(raw.ca_certificates.as_ref().or_else(|| pair?.ca_certificates.as_ref()));
    if raw.credential_name.is_some() && !raw.credential_names.is_empty() {
        r.refuse_at(
            "credentialNames",
            Reason::Excludes {
                this: "credentialNames",
                other: "credentialName",
            },
        );
    }
    if !credentials.is_empty() && !raw.tls_certificates.is_empty() {
        r.refuse_at(
            "tlsCertificates",
            Reason::Excludes {
                this: "tlsCertificates",
                other: "credentialName",
            },
        );
    }
    let own = !credentials.is_empty() || certificate_file.is_some() || key_file.is_some();
    match mode {
        Some(ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) => {
            if credentials.is_empty() && certificate_file.is_none() {
                let remedy = "write credentialName, or serverCertificate and privateKey";
                r.refuse_at("credentialName", Reason::Missing { remedy });
            } else if credentials.is_empty() && key_file.is_none() {
                r.refuse_at(
                    "privateKey",
                    Reason::Missing {
                        remedy: "write the file with the certificate's key",
                    },
                );
            }
            if mode != Some(ServerTlsMode::Simple) && credentials.is_empty() && ca_file.is_none() {
                let remedy = "write the authorities that client certificates come from, or credentialName";
                r.refuse_at("caCertificates", Reason::Missing { remedy });
            }
        }
        Some(ServerTlsMode::Mesh) if own => {
            let other = "certificates of your own; ISTIO_MUTUAL takes the mesh's, MUTUAL takes yours";
            r.refuse_at(
                "mode",
                Reason::Excludes {
                    this: "ISTIO_MUTUAL",
                    other,
                },
            );
        }
        Some(ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough) if own => {
            let why = "TLS is passed on as it is; write mode SIMPLE to end it here";
            r.caution("credentialName", &Caution::NoEffect { why });
        }
        _ => {}
    }
    let (oldest, newest) = (raw.min_protocol_version, raw.max_protocol_version);
    if let (Some(oldest), Some(newest)) = (oldest, newest)
        && newest != gw::TlsProtocol::Auto
        && oldest > newest
    {
        let remedy = "an order: minProtocolVersion is newer than maxProtocolVersion, swap them";
        r.refuse_at("minProtocolVersion", Reason::Missing { remedy });
    }
    ServerTls {
        https_redirect,
        mode,
        credentials,
        certificate_file,
        key_file,
        ca_file,
        subject_alt_names: raw
            .subject_alt_names
            .iter()
            .map(|name| Arc::from(name.as_str()))
            .collect(),
        min_version: oldest.and_then(version),
        max_version: newest.and_then(version),
        cipher_suites: raw.cipher_suites.iter().map(|name| Arc::from(name.as_str())).collect(),
    }
}

fn version(raw: gw::TlsProtocol) -> Option<Arc<str>> {
    Some(Arc::from(match raw {
        gw::TlsProtocol::Auto => return None,
        gw::TlsProtocol::V1_0 => "TLSV1_0",
        gw::TlsProtocol::V1_1 => "TLSV1_1",
        gw::TlsProtocol::V1_2 => "TLSV1_2",
        gw::TlsProtocol::V1_3 => "TLSV1_3",
    }))
}

//! DestinationRule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mizzen_crds as crds;
use mizzen_crds::networking::destination_rule as dr;
use mizzen_model::{
    ClientTls, ConnectionPool, CredentialName, DestinationRule, H2Upgrade, HttpPool, ObjectKey, OutlierDetection,
    Subset, SubsetName, TcpKeepalive, TcpPool, TrafficPolicy,
};

use super::load_balancer;
use crate::error::{Caution, Reason};
use crate::reader::{Reader, created, text};

pub(super) fn read(r: &mut Reader<'_>, key: ObjectKey, raw: &crds::DestinationRule) -> Option<DestinationRule> {
    let spec = &raw.spec;
    let host = r.host("host", &spec.host);
    let policy = policy(r, spec.traffic_policy.as_ref());
    let mut seen = BTreeSet::new();
    let subsets = r.each("subsets", &spec.subsets, |r, subset| {
        let name = r.take("name", SubsetName::new(&subset.name));
        if !seen.insert(subset.name.clone()) {
            let remedy = "give each subset its own name";
            r.refuse_at(
                "name",
                Reason::Duplicate {
                    name: subset.name.clone(),
                    remedy,
                },
            );
        }
        let labels = r.labels("labels", &subset.labels);
        let policy = subset.traffic_policy.as_ref().map(|raw| self::policy(r, Some(raw)));
        Some(Subset {
            name: name?,
            labels,
            policy,
        })
    });
    let export_to = r.export_to("exportTo", &spec.export_to);
    let workload_selector = spec
        .workload_selector
        .as_ref()
        .map(|selector| r.inside("workloadSelector", |r| r.labels("matchLabels", &selector.match_labels)));
    Some(DestinationRule {
        created: created(&raw.metadata),
        key,
        host: host?,
        export_to,
        workload_selector,
        policy,
        subsets,
    })
}

fn policy(r: &mut Reader<'_>, raw: Option<&dr::TrafficPolicy>) -> TrafficPolicy {
    let Some(raw) = raw else {
        return TrafficPolicy::default();
    };
    r.inside("trafficPolicy", |r| {
        r.not_acted_on("tunnel", raw.tunnel.is_some());
        r.not_acted_on("proxyProtocol", raw.proxy_protocol.is_some());
        r.not_acted_on("retryBudget", raw.retry_budget.is_some());
        let mut ports = BTreeMap::new();
        r.each("portLevelSettings", &raw.port_level_settings, |r, settings| {
            let number = settings.port.as_ref().and_then(|port| port.number);
            if number.is_none() {
                r.refuse_at(
                    "port.number",
                    Reason::Missing {
                        remedy: "write the port that the settings are for",
                    },
                );
            }
            let port = r.port("port.number", number)?;
            let policy = TrafficPolicy {
                load_balancer: load_balancer::read(r, settings.load_balancer.as_ref()),
                connection_pool: settings.connection_pool.as_ref().map(|raw| connection_pool(r, raw)),
                outlier: settings.outlier_detection.as_ref().map(|raw| outlier(r, raw)),
                tls: settings.tls.as_ref().and_then(|raw| tls(r, raw)),
                ports: BTreeMap::new(),
            };
            if ports.insert(port, policy).is_some() {
                let remedy = "write one entry per port";
                r.refuse_at(
                    "port.number",
                    Reason::Duplicate {
                        name: port.to_string(),
                        remedy,
                    },
                );
            }
            Some(())
        });
        TrafficPolicy {
            load_balancer: load_balancer::read(r, raw.load_balancer.as_ref()),
            connection_pool: raw.connection_pool.as_ref().map(|raw| connection_pool(r, raw)),
            outlier: raw.outlier_detection.as_ref().map(|raw| outlier(r, raw)),
            tls: raw.tls.as_ref().and_then(|raw| tls(r, raw)),
            ports,
        }
    })
}

fn connection_pool(r: &mut Reader<'_>, raw: &dr::ConnectionPoolSettings) -> ConnectionPool {
    r.inside("connectionPool", |r| ConnectionPool {
        tcp: raw
            .tcp
            .as_ref()
            .map_or_else(TcpPool::default, |tcp| r.inside("tcp", |r| tcp_pool(r, tcp))),
        http: raw
            .http
            .as_ref()
            .map_or_else(HttpPool::default, |http| r.inside("http", |r| http_pool(r, http))),
    })
}

fn tcp_pool(r: &mut Reader<'_>, raw: &dr::TcpSettings) -> TcpPool {
    TcpPool {
        max_connections: r
            .count("maxConnections", raw.max_connections)
            .filter(|count| *count > 0),
        connect_timeout: r.duration("connectTimeout", raw.connect_timeout.as_ref()),
        keepalive: raw.tcp_keepalive.as_ref().map(|keepalive| {
            r.inside("tcpKeepalive", |r| TcpKeepalive {
                probes: keepalive.probes,
                time: r.duration("time", keepalive.time.as_ref()),
                interval: r.duration("interval", keepalive.interval.as_ref()),
            })
        }),
        max_connection_duration: r.duration("maxConnectionDuration", raw.max_connection_duration.as_ref()),
        idle_timeout: r.duration_or_zero("idleTimeout", raw.idle_timeout.as_deref()),
    }
}

fn http_pool(r: &mut Reader<'_>, raw: &dr::HttpSettings) -> HttpPool {
    r.not_acted_on("http2KeepAlive", raw.http2_keep_alive.is_some());
    // Istio: 0 means that nothing is said.
    let mut limit = |field: &str, number| r.count(field, number).filter(|count| *count > 0);
    HttpPool {
        max_pending_requests: limit("http1MaxPendingRequests", raw.http1_max_pending_requests),
        max_requests: limit("http2MaxRequests", raw.http2_max_requests),
        max_requests_per_connection: limit("maxRequestsPerConnection", raw.max_requests_per_connection),
        max_retries: limit("maxRetries", raw.max_retries),
        max_concurrent_streams: limit("maxConcurrentStreams", raw.max_concurrent_streams),
        idle_timeout: r.duration("idleTimeout", raw.idle_timeout.as_ref()),
        h2_upgrade: match raw.h2_upgrade_policy.unwrap_or_default() {
            dr::H2UpgradePolicy::Default => H2Upgrade::Default,
            dr::H2UpgradePolicy::DoNotUpgrade => H2Upgrade::No,
            dr::H2UpgradePolicy::Upgrade => H2Upgrade::Yes,
        },
        use_client_protocol: raw.use_client_protocol.unwrap_or(false),
    }
}

fn outlier(r: &mut Reader<'_>, raw: &dr::OutlierDetection) -> OutlierDetection {
    r.inside("outlierDetection", |r| {
        let old = r.count("consecutiveErrors", raw.consecutive_errors);
        if old.is_some() {
            r.caution(
                "consecutiveErrors",
                &Caution::Deprecated {
                    modern: "consecutive5xxErrors",
                },
            );
        }
        r.not_acted_on(
            "outlierDetectionHttpErrorCodes",
            !raw.outlier_detection_http_error_codes.is_empty(),
        );
        OutlierDetection {
            consecutive_5xx: raw.consecutive_5xx_errors.or(old),
            consecutive_gateway: raw.consecutive_gateway_errors,
            consecutive_local: raw.consecutive_local_origin_failures,
            split_local_errors: raw.split_external_local_origin_errors.unwrap_or(false),
            interval: r.duration("interval", raw.interval.as_ref()),
            base_ejection_time: r.duration("baseEjectionTime", raw.base_ejection_time.as_ref()),
            max_ejection_percent: r.percentage("maxEjectionPercent", raw.max_ejection_percent),
            min_health_percent: r.percentage("minHealthPercent", raw.min_health_percent).unwrap_or(0),
        }
    })
}

fn tls(r: &mut Reader<'_>, raw: &dr::ClientTlsSettings) -> Option<ClientTls> {
    r.inside("tls", |r| {
        r.not_acted_on("caCrl", raw.ca_crl.is_some());
        let sni = text(raw.sni.as_ref());
        let subject_alt_names = raw
            .subject_alt_names
            .iter()
            .map(|name| Arc::from(name.as_str()))
            .collect();
        let credential = raw.credential_name.as_ref().filter(|name| !name.is_empty());
        let credential = credential.and_then(|name| r.take("credentialName", CredentialName::new(name)));
        let certificate_file = text(raw.client_certificate.as_ref());
        let key_file = text(raw.private_key.as_ref());
        let ca_file = text(raw.ca_certificates.as_ref());
        let insecure_skip_verify = raw.insecure_skip_verify.unwrap_or(false);
        let files = certificate_file.is_some() || key_file.is_some();
        match raw.mode.unwrap_or_default() {
            dr::ClientTlsMode::Disable => Some(ClientTls::Disable),
            dr::ClientTlsMode::Simple => {
                if files {
                    let why = "in mode SIMPLE the client shows no certificate; write MUTUAL";
                    r.caution("clientCertificate", &Caution::NoEffect { why });
                }
                Some(ClientTls::Simple {
                    sni,
                    subject_alt_names,
                    credential,
                    ca_file,
                    insecure_skip_verify,
                })
            }
            dr::ClientTlsMode::Mutual => {
                match (&credential, files) {
                    (Some(_), true) => {
                        r.refuse_at(
                            "credentialName",
                            Reason::Excludes {
                                this: "credentialName",
                                other: "clientCertificate",
                            },
                        );
                    }
                    (None, _) if certificate_file.is_none() => {
                        let remedy = "write clientCertificate and privateKey, or credentialName";
                        r.refuse_at("clientCertificate", Reason::Missing { remedy });
                    }
                    (None, _) if key_file.is_none() => {
                        r.refuse_at(
                            "privateKey",
                            Reason::Missing {
                                remedy: "write the file with the certificate's key",
                            },
                        );
                    }
                    _ => {}
                }
                Some(ClientTls::Mutual {
                    sni,
                    subject_alt_names,
                    credential,
                    certificate_file,
                    key_file,
                    ca_file,
                    insecure_skip_verify,
                })
            }
            dr::ClientTlsMode::IstioMutual => {
                if files || ca_file.is_some() || credential.is_some() {
                    let other = "certificates of your own; ISTIO_MUTUAL takes the mesh's, MUTUAL takes yours";
                    r.refuse_at(
                        "mode",
                        Reason::Excludes {
                            this: "ISTIO_MUTUAL",
                            other,
                        },
                    );
                }
                Some(ClientTls::Mesh { sni, subject_alt_names })
            }
        }
    })
}

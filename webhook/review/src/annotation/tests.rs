use super::*;
use crate::config::Images;

fn config() -> InjectConfig {
    let images: Images = serde_json::from_str(r#"{"registry": "r", "tag": "t"}"#).unwrap();
    InjectConfig::new("basic", "mesh", images)
}

fn read(pairs: &[(&str, &str)]) -> Result<PodOptions, AnnotationError> {
    let annotations = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    PodOptions::read(&config(), &annotations)
}

// B5
#[test]
fn a_pod_without_annotations_gets_what_the_mesh_says() {
    let options = read(&[("example.com/note", "x")]).unwrap();
    assert_eq!(options.resources, config().resources);
    assert_eq!(options.capture, Capture::default());
    assert_eq!(options.discovery_address, "istiod-basic.mesh.svc:15012");
    assert_eq!((options.status_port, options.drain.as_str()), (15020, "5s"));
    assert!(options.warnings.is_empty());
}

// B5
#[test]
fn every_annotation_is_heard() {
    let options = read(&[
        ("sidecar.mizzen.io/data-plane", "envoy"),
        ("sidecar.istio.io/proxyImage", "r.example/own:1"),
        ("sidecar.istio.io/nativeSidecar", "false"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "false"),
        ("prometheus.istio.io/merge-metrics", "false"),
        ("status.sidecar.istio.io/port", "15099"),
        ("readiness.status.sidecar.istio.io/initialDelaySeconds", "3"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "4"),
        ("readiness.status.sidecar.istio.io/failureThreshold", "5"),
        ("sidecar.istio.io/proxyCPU", "150m"),
        ("sidecar.istio.io/proxyMemoryLimit", "96Mi"),
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.1.0.0/16"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "8080"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "9000"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "7000"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "7001"),
        ("sidecar.istio.io/logLevel", "debug"),
        ("sidecar.istio.io/componentLogLevel", "http:trace"),
        ("sidecar.istio.io/userVolume", r#"[{"name": "extra", "emptyDir": {}}]"#),
        (
            "sidecar.istio.io/userVolumeMount",
            r#"[{"name": "extra", "mountPath": "/extra"}]"#,
        ),
        (
            "proxy.istio.io/config",
            "concurrency: 3\nholdApplicationUntilProxyStarts: false\nterminationDrainDuration: 9s\n\
             discoveryAddress: d.example:15012\nproxyMetadata:\n  OWN: \"1\"\ntracing: {}\n",
        ),
    ])
    .unwrap();
    assert_eq!(options.data_plane, DataPlane::Envoy);
    assert_eq!(options.image.as_deref(), Some("r.example/own:1"));
    assert!(
        !options.native_sidecar && !options.rewrite_probes && !options.merge_prometheus && !options.hold_application
    );
    assert_eq!(options.status_port, 15099);
    assert_eq!(
        (
            options.readiness_initial_delay,
            options.readiness_period,
            options.readiness_failures
        ),
        (3, 4, 5)
    );
    let quantities = |block: &Option<BTreeMap<String, Quantity>>| format!("{block:?}");
    assert_eq!(
        quantities(&options.resources.requests),
        r#"Some({"cpu": Quantity("150m")})"#
    );
    assert_eq!(
        quantities(&options.resources.limits),
        r#"Some({"memory": Quantity("96Mi")})"#
    );
    let capture = Capture {
        interception_mode: InterceptionMode::Tproxy,
        include_outbound_ip_ranges: "10.0.0.0/8".into(),
        exclude_outbound_ip_ranges: "10.1.0.0/16".into(),
        include_outbound_ports: "7000".into(),
        exclude_outbound_ports: "7001".into(),
        include_inbound_ports: "8080".into(),
        exclude_inbound_ports: "9000".into(),
    };
    assert_eq!(options.capture, capture);
    assert_eq!(
        (options.log_level.as_str(), options.component_log_level.as_str()),
        ("debug", "http:trace")
    );
    assert_eq!((options.concurrency, options.drain.as_str()), (Some(3), "9s"));
    assert_eq!(options.discovery_address, "d.example:15012");
    assert_eq!(options.env, [("OWN".to_owned(), "1".to_owned())].into());
    assert_eq!((options.volumes.len(), options.volume_mounts.len()), (1, 1));
    assert_eq!(
        options.warnings,
        ["annotation proxy.istio.io/config: tracing is not acted on by this version"]
    );
}

// B5
#[test]
fn a_bad_value_is_refused_by_name_with_what_to_write() {
    let bad = [
        ("sidecar.mizzen.io/data-plane", "nginx"),
        ("inject.istio.io/templates", "gateway"),
        ("sidecar.istio.io/proxyImage", "two words"),
        ("sidecar.istio.io/nativeSidecar", "yes"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", ""),
        ("prometheus.istio.io/merge-metrics", "1"),
        ("status.sidecar.istio.io/port", "70000"),
        ("readiness.status.sidecar.istio.io/initialDelaySeconds", "-1"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "0"),
        ("readiness.status.sidecar.istio.io/failureThreshold", "x"),
        ("sidecar.istio.io/proxyCPU", "a lot"),
        ("sidecar.istio.io/proxyMemory", "64MB"),
        ("sidecar.istio.io/proxyCPULimit", "-1"),
        ("sidecar.istio.io/proxyMemoryLimit", "64 Mi"),
        ("sidecar.istio.io/interceptionMode", "redirect"),
        ("sidecar.istio.io/discoveryAddress", "nowhere"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.1"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "http"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "0"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "80;81"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "80,"),
        ("sidecar.istio.io/logLevel", "loud"),
        ("sidecar.istio.io/componentLogLevel", "http"),
        ("sidecar.istio.io/userVolume", "{}"),
        ("sidecar.istio.io/userVolumeMount", "no JSON"),
        ("proxy.istio.io/config", "concurrency: many"),
        ("proxy.istio.io/config", "conkurrency: 2"),
        ("proxy.istio.io/config", "terminationDrainDuration: soon"),
        ("proxy.istio.io/config", "proxyMetadata: {\"A-B\": \"1\"}"),
    ];
    for (annotation, value) in bad {
        let error = read(&[(annotation, value)]).expect_err(annotation);
        assert_eq!((error.annotation, error.value.as_str()), (annotation, value));
        assert!(
            error
                .to_string()
                .starts_with(&format!("annotation {annotation} has the value {value:?}: write "))
        );
    }
    assert_eq!(
        read(&[("traffic.sidecar.istio.io/excludeInboundPorts", "http")])
            .unwrap_err()
            .to_string(),
        "annotation traffic.sidecar.istio.io/excludeInboundPorts has the value \"http\": write ports from 1 to 65535 \
         separated by commas, such as 8080,9090"
    );
}

// B5
#[test]
fn what_is_known_and_not_acted_on_is_said() {
    let options = read(&[("sidecar.istio.io/statsFlushInterval", "5s")]).unwrap();
    assert_eq!(
        options.warnings,
        ["annotation sidecar.istio.io/statsFlushInterval is not acted on by this version"]
    );
}

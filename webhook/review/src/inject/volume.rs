//! The volumes that a sidecar needs, and where it finds them.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ObjectFieldSelector,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

/// What a token must be made for, so that nobody else accepts it.
const AUDIENCE: &str = "istio-ca";

/// Names and places are Istio's.
const PLACES: [(&str, &str); 6] = [
    ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
    ("istiod-ca-cert", "/var/run/secrets/istio"),
    ("istio-data", "/var/lib/istio/data"),
    ("istio-envoy", "/etc/istio/proxy"),
    ("istio-token", "/var/run/secrets/tokens"),
    ("istio-podinfo", "/etc/istio/pod"),
];

pub(super) fn mounts() -> Vec<VolumeMount> {
    PLACES
        .iter()
        .map(|(name, path)| VolumeMount {
            name: (*name).to_owned(),
            mount_path: (*path).to_owned(),
            ..VolumeMount::default()
        })
        .collect()
}

pub(super) fn volumes(token_seconds: i64) -> Vec<Volume> {
    let empty = |name: &str, medium: Option<&str>| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit: None,
        }),
        ..Volume::default()
    };
    let info = |path: &str| DownwardAPIVolumeFile {
        path: path.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.{path}"),
            api_version: None,
        }),
        ..DownwardAPIVolumeFile::default()
    };
    vec![
        empty("workload-socket", None),
        Volume {
            name: "istiod-ca-cert".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: "istio-ca-root-cert".to_owned(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        empty("istio-data", None),
        // Envoy's bootstrap: in memory, because it is gone with the pod.
        empty("istio-envoy", Some("Memory")),
        Volume {
            name: "istio-token".to_owned(),
            projected: Some(ProjectedVolumeSource {
                default_mode: None,
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(ServiceAccountTokenProjection {
                        audience: Some(AUDIENCE.to_owned()),
                        expiration_seconds: Some(token_seconds),
                        path: "istio-token".to_owned(),
                    }),
                    ..VolumeProjection::default()
                }]),
            }),
            ..Volume::default()
        },
        Volume {
            name: "istio-podinfo".to_owned(),
            downward_api: Some(DownwardAPIVolumeSource {
                default_mode: None,
                items: Some(vec![info("labels"), info("annotations")]),
            }),
            ..Volume::default()
        },
    ]
}

//! The operator's own webhook configurations, which it writes and repairs itself: only it knows its CA.

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt as _};
use mizzen_desired::FIELD_MANAGER;
use serde::Serialize;
use serde::de::DeserializeOwned;

const GROUP: &str = "maistra.io";
/// SubjectAccessReviews may take 3 s.
const TIMEOUT_SECONDS: i32 = 5;

/// Where the API server reaches the operator's webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The operator's namespace.
    pub namespace: String,
    /// The Service.
    pub name: String,
    /// Its port, usually 443.
    pub port: i32,
}

/// `<operator namespace>.servicemesh-resources.maistra.io`, mutating and validating.
pub fn operator_configurations(
    service: &ServicePort,
    ca_pem: &str,
) -> (MutatingWebhookConfiguration, ValidatingWebhookConfiguration) {
    let metadata = ObjectMeta {
        name: Some(format!("{}.servicemesh-resources.maistra.io", service.namespace)),
        labels: Some(
            [
                ("app.kubernetes.io/name", "mizzen-operator"),
                ("app.kubernetes.io/component", "webhooks"),
                ("app.kubernetes.io/managed-by", "mizzen-operator"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ),
        ..ObjectMeta::default()
    };
    let client = |path: &str| WebhookClientConfig {
        service: Some(ServiceReference {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: Some(service.port),
            path: Some(path.to_owned()),
        }),
        ca_bundle: Some(ByteString(ca_pem.as_bytes().to_vec())),
        url: None,
    };
    let mutating = [
        ("smcp", "v2", "servicemeshcontrolplanes"),
        ("smmr", "v1", "servicemeshmemberrolls"),
    ];
    let validating = [
        ("smcp", "v2", "servicemeshcontrolplanes"),
        ("smmr", "v1", "servicemeshmemberrolls"),
        ("smm", "v1", "servicemeshmembers"),
    ];
    let mutating = mutating.map(|(short, version, resource)| MutatingWebhook {
        name: format!("{short}.mutation.maistra.io"),
        client_config: client(&format!("/mutate-{short}")),
        rules: Some(vec![rule(version, resource)]),
        failure_policy: Some("Fail".to_owned()),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        admission_review_versions: vec!["v1".to_owned()],
        ..MutatingWebhook::default()
    });
    let validating = validating.map(|(short, version, resource)| ValidatingWebhook {
        name: format!("{short}.validation.maistra.io"),
        client_config: client(&format!("/validate-{short}")),
        rules: Some(vec![rule(version, resource)]),
        failure_policy: Some("Fail".to_owned()),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        admission_review_versions: vec!["v1".to_owned()],
        ..ValidatingWebhook::default()
    });
    (
        MutatingWebhookConfiguration {
            metadata: metadata.clone(),
            webhooks: Some(mutating.into()),
        },
        ValidatingWebhookConfiguration {
            metadata,
            webhooks: Some(validating.into()),
        },
    )
}

fn rule(version: &str, resource: &str) -> RuleWithOperations {
    RuleWithOperations {
        api_groups: Some(vec![GROUP.to_owned()]),
        api_versions: Some(vec![version.to_owned()]),
        operations: Some(vec!["CREATE".to_owned(), "UPDATE".to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        scope: Some("Namespaced".to_owned()),
    }
}

/// Applies a configuration and repairs it, for ever. Applying what is there already writes nothing.
pub(super) async fn keep<K>(client: Client, desired: K)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::all(client);
    let name = desired.name_any();
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watch(api.clone(), only).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            // After the first list (whether it is there or not), and after every change.
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                let params = PatchParams::apply(FIELD_MANAGER).force();
                if let Err(error) = api.patch(&name, &params, &Patch::Apply(&desired)).await {
                    tracing::error!(name, %error, "webhook configuration not applied");
                }
            }
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => tracing::warn!(name, %error, "webhook configuration not watched just now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A1, A3, A4
    #[test]
    fn every_kind_is_judged_before_it_is_stored() {
        let service = ServicePort {
            namespace: "op".into(),
            name: "hooks".into(),
            port: 443,
        };
        let (mutating, validating) = operator_configurations(&service, "PEM");
        assert_eq!(mutating.name_any(), "op.servicemesh-resources.maistra.io");
        let paths: Vec<_> = validating
            .webhooks
            .iter()
            .flatten()
            .map(|webhook| webhook.client_config.service.as_ref().unwrap().path.clone().unwrap())
            .collect();
        assert_eq!(paths, ["/validate-smcp", "/validate-smmr", "/validate-smm"]);
        assert!(
            validating
                .webhooks
                .iter()
                .flatten()
                .all(|webhook| webhook.failure_policy.as_deref() == Some("Fail"))
        );
    }
}

//! The CA bundle in webhook configurations: written when we have a certificate, and again whenever somebody takes it out.

use base64::Engine as _;
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A webhook configuration of either kind.
pub(crate) trait Configuration:
    Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static
{
    /// The CA bundle of each webhook, in order.
    fn bundles(&self) -> Vec<Option<&[u8]>>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn bundles(&self) -> Vec<Option<&[u8]>> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| bundle(&webhook.client_config)).collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn bundles(&self) -> Vec<Option<&[u8]>> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| bundle(&webhook.client_config)).collect()
    }
}

fn bundle(client: &WebhookClientConfig) -> Option<&[u8]> {
    client.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice())
}

/// Keeps `ca_pem` in every webhook of one configuration, for ever. A configuration that is not there yet gets it when it is.
pub(crate) async fn keep<K: Configuration>(client: Client, name: String, ca_pem: String) {
    let api: Api<K> = Api::all(client);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watch(api.clone(), only).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(configuration) | Event::InitApply(configuration)) => {
                if let Some(patch) = patch(&configuration, ca_pem.as_bytes()) {
                    write(&api, &name, patch).await;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(name, %error, "webhook configuration not watched just now"),
        }
    }
}

/// A patch that loses against a change brings the next event, and that the next patch.
async fn write<K: Configuration>(api: &Api<K>, name: &str, patch: Value) {
    let result = match serde_json::from_value(patch) {
        Ok(patch) => {
            api.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch))
                .await
        }
        Err(error) => return tracing::error!(name, %error, "the patch of the CA bundle is malformed"),
    };
    match result {
        Ok(_) => tracing::info!(name, "CA bundle written"),
        Err(error) => tracing::warn!(name, %error, "CA bundle not written; tried again at the next change"),
    }
}

/// What brings the bundle into every webhook; nothing if it is there.
fn patch<K: Configuration>(configuration: &K, ca_pem: &[u8]) -> Option<Value> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    let mut operations: Vec<Value> = configuration
        .bundles()
        .into_iter()
        .enumerate()
        .filter(|(_, bundle)| *bundle != Some(ca_pem))
        .map(|(at, _)| json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": encoded}))
        .collect();
    if operations.is_empty() {
        return None;
    }
    // Positions count for this version only.
    let version = configuration.resource_version().unwrap_or_default();
    operations.insert(
        0,
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}),
    );
    Some(Value::Array(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    // B7
    #[test]
    fn only_webhooks_without_the_bundle_are_patched() {
        let configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": "w", "resourceVersion": "42"},
            "webhooks": [
                {"name": "a", "admissionReviewVersions": [], "sideEffects": "None", "clientConfig": {"caBundle": "b3Vycw=="}},
                {"name": "b", "admissionReviewVersions": [], "sideEffects": "None", "clientConfig": {"caBundle": "b3RoZXI="}},
                {"name": "c", "admissionReviewVersions": [], "sideEffects": "None", "clientConfig": {}},
            ],
        }))
        .unwrap();
        let expected = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "42"},
            {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "b3Vycw=="},
            {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "b3Vycw=="},
        ]);
        assert_eq!(patch(&configuration, b"ours"), Some(expected));
        let mut done = configuration;
        done.webhooks.as_mut().unwrap().truncate(1);
        assert_eq!(patch(&done, b"ours"), None);
    }
}

//! Webhook configurations of the control plane: which pods go to the injector, which objects to the validator.
//!
//! The CA bundle is not here: istiod writes it when it has a certificate, and repairs it. Until then every call fails, and
//! `failurePolicy: Fail` keeps pods from starting without a sidecar that they should have.

use crate::pod::cluster_meta;
use crate::{Component, ValidatedMesh, labels};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

const COMPONENT: Component = Component::MeshConfig;

/// Long enough for a control plane under load, short enough that a rollout is not stuck for the default of 10 s per try.
const TIMEOUT_SECONDS: i32 = 5;

/// Namespaces whose pods the cluster itself needs to start.
const NEVER: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

pub(crate) fn injection_name(mesh: &ValidatedMesh) -> String {
    mesh.cluster_name()
}

pub(crate) fn validation_name(mesh: &ValidatedMesh) -> String {
    format!("istio-validator-{}-{}", mesh.key().name, mesh.key().namespace)
}

pub(crate) fn injection(mesh: &ValidatedMesh) -> MutatingWebhookConfiguration {
    let revision = mesh.key().name.as_str();
    let namespace = mesh.key().namespace.as_str();
    let asked = || vec![not_in(labels::INJECT, &["false"])];
    // Members first: with them alone a mesh of mode MultiTenant is complete. Which pods of a member get a sidecar is the
    // injector's decision, since an annotation may ask for one, and annotations cannot be selected.
    let mut selectors = vec![(
        "member",
        vec![
            is_in(labels::MEMBER_OF, &[namespace]),
            not_in(labels::INJECTION, &["disabled"]),
        ],
        asked(),
    )];
    if mesh.cluster_wide() {
        let other = |mut more: Vec<LabelSelectorRequirement>| {
            // A member is sent once, by the rule above.
            more.push(not_in(labels::MEMBER_OF, &[namespace]));
            more
        };
        selectors.extend([
            (
                "namespace",
                other(vec![is_in(labels::INJECTION, &["enabled"])]),
                asked(),
            ),
            (
                "rev.namespace",
                other(vec![is_in(labels::REVISION, &[revision]), absent(labels::INJECTION)]),
                asked(),
            ),
            (
                "rev.object",
                other(vec![absent(labels::REVISION), absent(labels::INJECTION)]),
                vec![not_in(labels::INJECT, &["false"]), is_in(labels::REVISION, &[revision])],
            ),
            (
                "object",
                other(vec![absent(labels::REVISION), absent(labels::INJECTION)]),
                vec![is_in(labels::INJECT, &["true"]), absent(labels::REVISION)],
            ),
        ]);
    }
    let operator = mesh.settings().operator_namespace.clone();
    let webhooks = selectors.into_iter().map(|(name, mut namespaces, mut objects)| {
        let never: Vec<_> = NEVER.into_iter().chain([operator.as_str()]).collect();
        namespaces.push(not_in("kubernetes.io/metadata.name", &never));
        namespaces.push(absent(labels::IGNORE_NAMESPACE));
        namespaces.push(absent("istio-env"));
        objects.push(not_in("app", &["istiod"]));
        MutatingWebhook {
            name: format!("{name}.sidecar-injector.istio.io"),
            client_config: client(mesh, "/inject"),
            rules: Some(vec![rule(&["CREATE"], &[""], &["v1"], &["pods"])]),
            failure_policy: Some("Fail".to_owned()),
            match_policy: Some("Equivalent".to_owned()),
            reinvocation_policy: Some("Never".to_owned()),
            side_effects: "None".to_owned(),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            admission_review_versions: vec!["v1".to_owned()],
            namespace_selector: Some(requirements(namespaces)),
            object_selector: Some(requirements(objects)),
            ..MutatingWebhook::default()
        }
    });
    MutatingWebhookConfiguration {
        metadata: cluster_meta(mesh, COMPONENT, &injection_name(mesh)),
        webhooks: Some(webhooks.collect()),
    }
}

pub(crate) fn validation(mesh: &ValidatedMesh) -> ValidatingWebhookConfiguration {
    let namespaces = if mesh.cluster_wide() {
        vec![not_in("kubernetes.io/metadata.name", &NEVER)]
    } else {
        vec![is_in(labels::MEMBER_OF, &[&mesh.key().namespace])]
    };
    let webhook = ValidatingWebhook {
        name: "validation.istio.io".to_owned(),
        client_config: client(mesh, "/validate"),
        rules: Some(vec![
            rule(
                &["CREATE", "UPDATE"],
                &["networking.istio.io"],
                &["*"],
                &["gateways", "virtualservices", "destinationrules"],
            ),
            rule(
                &["CREATE", "UPDATE"],
                &["security.istio.io"],
                &["*"],
                &["peerauthentications"],
            ),
        ]),
        failure_policy: Some("Fail".to_owned()),
        match_policy: Some("Equivalent".to_owned()),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        admission_review_versions: vec!["v1".to_owned()],
        namespace_selector: Some(requirements(namespaces)),
        object_selector: Some(LabelSelector::default()),
        ..ValidatingWebhook::default()
    };
    ValidatingWebhookConfiguration {
        metadata: cluster_meta(mesh, COMPONENT, &validation_name(mesh)),
        webhooks: Some(vec![webhook]),
    }
}

fn client(mesh: &ValidatedMesh, path: &str) -> WebhookClientConfig {
    WebhookClientConfig {
        service: Some(ServiceReference {
            name: mesh.istiod(),
            namespace: mesh.key().namespace.clone(),
            path: Some(path.to_owned()),
            port: Some(443),
        }),
        ..WebhookClientConfig::default()
    }
}

fn rule(operations: &[&str], groups: &[&str], versions: &[&str], resources: &[&str]) -> RuleWithOperations {
    let list = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    RuleWithOperations {
        operations: list(operations),
        api_groups: list(groups),
        api_versions: list(versions),
        resources: list(resources),
        scope: Some("Namespaced".to_owned()),
    }
}

fn requirements(match_expressions: Vec<LabelSelectorRequirement>) -> LabelSelector {
    LabelSelector {
        match_expressions: Some(match_expressions),
        match_labels: None,
    }
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: (!values.is_empty()).then(|| values.iter().map(|&value| value.to_owned()).collect()),
    }
}

fn is_in(key: &str, values: &[&str]) -> LabelSelectorRequirement {
    requirement(key, "In", values)
}

fn not_in(key: &str, values: &[&str]) -> LabelSelectorRequirement {
    requirement(key, "NotIn", values)
}

fn absent(key: &str) -> LabelSelectorRequirement {
    requirement(key, "DoesNotExist", &[])
}

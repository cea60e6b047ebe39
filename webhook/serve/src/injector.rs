//! Injection with what it needs to know: the mesh's configuration and the labels of the pod's namespace.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client};
use mizzen_review::{CONFIG_MAP_KEY, InjectConfig, Request, Response, config_map_name, review_pod};

use crate::namespaces::Namespaces;

/// The injector of one revision. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Injector {
    config: Arc<ArcSwapOption<InjectConfig>>,
    namespaces: Namespaces,
    source: Arc<Source>,
}

struct Source {
    api: Api<ConfigMap>,
    namespace: String,
    name: String,
}

impl Injector {
    pub(crate) fn new(client: Client, revision: &str, namespace: &str, namespaces: Namespaces) -> Self {
        let source = Source {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: config_map_name(revision),
        };
        Self {
            config: Arc::default(),
            namespaces,
            source: Arc::new(source),
        }
    }

    /// Whether it knows what to inject.
    pub(crate) fn is_ready(&self) -> bool {
        self.config.load().is_some()
    }

    pub(crate) async fn review(&self, request: Request) -> Response {
        let Some(config) = self.config.load_full() else {
            let Source { namespace, name, .. } = &*self.source;
            let message = format!(
                "the injector has no configuration yet: ConfigMap {namespace}/{name} is not there or not readable"
            );
            return request.refuse(500, message, "no_config");
        };
        let cached = self.namespaces.cached(&request.namespace);
        if let Some(labels) = &cached {
            let response = review_pod(&request, &config, Some(labels));
            if !hinges_on_namespace(response.category) {
                return response;
            }
        }
        // The API server has sent the pod because of its namespace's labels, and the watch does not bear it out (or does not
        // know the namespace): it may be behind. A pod must not lose its sidecar to that.
        let fresh = self.namespaces.fresh(&request.namespace).await;
        review_pod(&request, &config, fresh.as_deref())
    }

    /// Follows the configuration, for ever. A configuration that cannot be read leaves the last good one in force.
    pub(crate) async fn follow(self) {
        let Source { api, namespace, name } = &*self.source;
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let events = watch(api.clone(), only).default_backoff();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(config_map) | Event::InitApply(config_map)) => {
                    let text = config_map.data.as_ref().and_then(|data| data.get(CONFIG_MAP_KEY));
                    match InjectConfig::from_json(text.map_or("", String::as_str)) {
                        Ok(config) => {
                            tracing::info!(ns = namespace, name, "injector configuration read");
                            self.config.store(Some(Arc::new(config)));
                        }
                        Err(error) => {
                            tracing::error!(ns = namespace, name, key = CONFIG_MAP_KEY, %error, "the last good one stays");
                        }
                    }
                }
                Ok(Event::Delete(_)) => {
                    tracing::error!(
                        ns = namespace,
                        name,
                        "injector configuration deleted; the last one stays"
                    );
                }
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => {
                    tracing::warn!(ns = namespace, name, %error, "injector configuration not watched just now");
                }
            }
        }
    }
}

/// Whether a skip came from the namespace's labels.
fn hinges_on_namespace(category: &str) -> bool {
    matches!(
        category,
        "not_a_member" | "namespace_ignored" | "namespace_refuses" | "other_revision" | "nobody_asks"
    )
}

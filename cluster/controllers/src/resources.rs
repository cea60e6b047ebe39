//! Which resources the API serves at the moment, and requests to any of them. In: discovery. Out: paths and metadata.

use http::Method;
use kube::{
    Client,
    core::ApiResource,
    discovery::{ApiCapabilities, Discovery, Scope},
};
use serde_json::Value;

/// A resource that the API serves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resource {
    /// Group, version, kind and plural.
    pub(crate) api: ApiResource,
    /// Whether its objects are in namespaces.
    pub(crate) namespaced: bool,
    /// What can be done with it: `list`, `delete`, `deletecollection`.
    pub(crate) verbs: Vec<String>,
}

impl Resource {
    fn new((api, can): (ApiResource, ApiCapabilities)) -> Self {
        Self {
            api,
            namespaced: can.scope == Scope::Namespaced,
            verbs: can.operations,
        }
    }

    /// Whether a verb is served.
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// The path of an object, or of the collection if there is no name.
    pub(crate) fn path(&self, namespace: &str, name: &str) -> String {
        let root = if self.api.group.is_empty() { "/api" } else { "/apis" };
        let namespace = if self.namespaced {
            format!("/namespaces/{namespace}")
        } else {
            String::new()
        };
        let name = if name.is_empty() {
            String::new()
        } else {
            format!("/{name}")
        };
        format!("{root}/{}{namespace}/{}{name}", self.api.api_version, self.api.plural)
    }
}

/// All resources, each in the version its group prefers, in a stable order.
pub(crate) async fn resources(client: &Client) -> Result<Vec<Resource>, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let groups = discovery.groups_alphabetical().into_iter();
    Ok(groups
        .flat_map(|group| group.recommended_resources())
        .map(Resource::new)
        .collect())
}

/// The metadata of an object or of a collection.
pub(crate) async fn metadata(client: &Client, path: &str, list: bool) -> Result<Value, kube::Error> {
    let kind = if list {
        "PartialObjectMetadataList"
    } else {
        "PartialObjectMetadata"
    };
    let request = http::Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(
            http::header::ACCEPT,
            format!("application/json;as={kind};g=meta.k8s.io;v=v1"),
        )
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

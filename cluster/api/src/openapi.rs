//! OpenAPI v3: an index, and a document per group and version, put together from the published schemas and the resources there are.
//! Version 2 is not served; clients since 1.29 do without it.

use crate::api::Api;
use crate::json;
use crate::kinds::{Resource, api_version};
use crate::negotiate::{Accept, Body, respond_value};
use crate::status::ApiError;
use http::{HeaderMap, Response};
use serde_json::{Map, Value, json};
use sha2::Digest as _;
use std::sync::Arc;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Answers a path under `/openapi`.
pub(crate) fn serve(api: &Api, path: &str, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let accept = Accept {
        gzip: Accept::of(headers).is_ok_and(|accept| accept.gzip),
        ..Accept::json()
    };
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    let value = match parts.as_slice() {
        ["v3"] => index(api),
        ["v3", "api", version] => document(api, "", version)?,
        ["v3", "apis", group, version] => document(api, group, version)?,
        _ => return Err(ApiError::no_such_resource()),
    };
    Ok(respond_value(200, accept, &value))
}

/// Where the documents are; the hash changes when a document does.
fn index(api: &Api) -> Value {
    let kinds = api.inner.registry.current();
    let mut paths = Map::new();
    for (group, versions) in &kinds.groups {
        for (version, resources) in &versions.versions {
            let path = if group.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{group}/{version}")
            };
            let mut text = format!("{path} {}", env!("CARGO_PKG_VERSION"));
            for custom in resources.iter().filter_map(|resource| resource.custom.as_ref()) {
                text.push_str(&format!(" {}={}", custom.definition, custom.revision));
            }
            let hash: String = sha2::Sha256::digest(text.as_bytes())
                .iter()
                .map(|byte| format!("{byte:02X}"))
                .collect();
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn document(api: &Api, group: &str, version: &str) -> Result<Value, ApiError> {
    let registry = &api.inner.registry;
    let kinds = registry.current();
    let resources = kinds.version(group, version).ok_or_else(ApiError::no_such_resource)?;
    let published = registry.components(group, version);
    // The smallest document that has the shapes of metadata.
    let text = published.or_else(|| registry.components("coordination.k8s.io", "v1"));
    let mut schemas: Map<String, Value> = text
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    if registry.components(group, version).is_none() {
        schemas.retain(|name, _| !name.starts_with("io.k8s.api."));
    }
    let mut paths = Map::new();
    for resource in resources {
        let name = match &resource.custom {
            Some(custom) => {
                let name = custom_name(resource);
                schemas.insert(format!("{name}List"), custom_list(resource, &name));
                schemas.insert(name.clone(), custom_schema(resource, &custom.open_api));
                name
            }
            None => published_name(&schemas, resource),
        };
        add_paths(&mut paths, resource, &name);
    }
    Ok(
        json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.33.0"}, "paths": paths,
        "components": {"schemas": schemas}}),
    )
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// The name of a built-in kind's schema: the one that says it is this kind.
fn published_name(schemas: &Map<String, Value>, resource: &Resource) -> String {
    let wanted = gvk(&resource.group, &resource.version, &resource.kind);
    let found = schemas
        .iter()
        .find(|(_, schema)| json::list(schema, "/x-kubernetes-group-version-kind").contains(&wanted));
    found.map(|(name, _)| name.clone()).unwrap_or_default()
}

/// `io.example.v1.Kind`, from the group `example.io`.
fn custom_name(resource: &Resource) -> String {
    let reversed: Vec<&str> = resource.group.rsplit('.').collect();
    format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind)
}

fn custom_schema(resource: &Resource, open_api: &Value) -> Value {
    let mut schema = if open_api.is_object() {
        open_api.clone()
    } else {
        json!({"type": "object"})
    };
    let kind = gvk(&resource.group, &resource.version, &resource.kind);
    json::set(&mut schema, "/x-kubernetes-group-version-kind", json!([kind]));
    let api_version = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized \
        schemas to the latest internal value, and may reject unrecognized values. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    let kind = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint \
        the client submits requests to. Cannot be updated. In CamelCase. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    let metadata = "Standard object's metadata. More info: \
        https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
    json::set(
        &mut schema,
        "/properties/apiVersion",
        json!({"type": "string", "description": api_version}),
    );
    json::set(
        &mut schema,
        "/properties/kind",
        json!({"type": "string", "description": kind}),
    );
    let reference =
        json!({"description": metadata, "allOf": [{"$ref": format!("#/components/schemas/{OBJECT_META}")}]});
    json::set(&mut schema, "/properties/metadata", reference);
    schema
}

fn custom_list(resource: &Resource, name: &str) -> Value {
    let kind = gvk(&resource.group, &resource.version, &resource.list_kind);
    json!({"type": "object", "required": ["items"], "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": format!("#/components/schemas/{name}")}},
            "metadata": {"allOf": [{"$ref": format!("#/components/schemas/{LIST_META}")}]}
        },
        "x-kubernetes-group-version-kind": [kind]})
}

fn query(name: &str, kind: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

/// The paths of a resource with the operations that it has.
fn add_paths(paths: &mut Map<String, Value>, resource: &Arc<Resource>, schema: &str) {
    let prefix = if resource.group.is_empty() {
        "/api".to_owned()
    } else {
        "/apis".to_owned()
    };
    let base = format!("{prefix}/{}", api_version(&resource.group, &resource.version));
    let place = if resource.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let whole = format!("{base}{place}/{}", resource.plural);
    if resource.namespaced {
        let verbs: Vec<&str> = resource
            .verbs
            .iter()
            .map(String::as_str)
            .filter(|verb| *verb == "list")
            .collect();
        insert(
            paths,
            format!("{base}/{}", resource.plural),
            resource,
            schema,
            &verbs,
            &[],
        );
    }
    let (all, one): (Vec<&str>, Vec<&str>) = resource
        .verbs
        .iter()
        .map(String::as_str)
        .partition(|verb| matches!(*verb, "list" | "create" | "deletecollection"));
    let parameters: &[&str] = if resource.namespaced { &["namespace"] } else { &[] };
    insert(paths, whole.clone(), resource, schema, &all, parameters);
    let named: &[&str] = if resource.namespaced {
        &["name", "namespace"]
    } else {
        &["name"]
    };
    let item = format!("{whole}/{{name}}");
    insert(paths, item.clone(), resource, schema, &one, named);
    if resource.has_status() {
        let verbs = ["get", "patch", "update"];
        insert(paths, format!("{item}/status"), resource, schema, &verbs, named);
    }
}

fn insert(
    paths: &mut Map<String, Value>,
    path: String,
    resource: &Resource,
    schema: &str,
    verbs: &[&str],
    parameters: &[&str],
) {
    let mut item = Map::new();
    for verb in verbs {
        let (method, action) = match *verb {
            "get" => ("get", "get"),
            "list" => ("get", "list"),
            "create" => ("post", "post"),
            "update" => ("put", "put"),
            "patch" => ("patch", "patch"),
            "delete" => ("delete", "delete"),
            "deletecollection" => ("delete", "deletecollection"),
            _ => continue,
        };
        item.insert(method.to_owned(), operation(resource, schema, action));
    }
    if item.is_empty() {
        return;
    }
    let all: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    if !all.is_empty() {
        item.insert("parameters".to_owned(), Value::Array(all));
    }
    paths.insert(path, Value::Object(item));
}

fn operation(resource: &Resource, schema: &str, action: &str) -> Value {
    let name = if action == "list" {
        format!("{schema}List")
    } else {
        schema.to_owned()
    };
    let content = |schema: Value| json!({"application/json": {"schema": schema}});
    let object = json!({"$ref": format!("#/components/schemas/{name}")});
    let parameters: Vec<Value> = match action {
        "post" | "put" => vec![
            query("dryRun", "string"),
            query("fieldManager", "string"),
            query("fieldValidation", "string"),
        ],
        "patch" => vec![
            query("dryRun", "string"),
            query("fieldManager", "string"),
            query("fieldValidation", "string"),
            query("force", "boolean"),
        ],
        "list" => ["continue", "fieldSelector", "labelSelector", "resourceVersion"]
            .map(|name| query(name, "string"))
            .to_vec(),
        "delete" | "deletecollection" => vec![query("dryRun", "string"), query("propagationPolicy", "string")],
        _ => Vec::new(),
    };
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(&resource.group, &resource.version, &resource.kind),
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": content(object.clone())}, "401": {"description": "Unauthorized"}}
    });
    let body = match action {
        "post" | "put" => Some(content(object)),
        "patch" => {
            let mut kinds = vec![
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
            ];
            if resource.custom.is_none() {
                kinds.push("application/strategic-merge-patch+json");
            }
            let kinds = kinds
                .into_iter()
                .map(|kind| (kind.to_owned(), json!({"schema": {"type": "object"}})));
            Some(Value::Object(kinds.collect()))
        }
        _ => None,
    };
    if let Some(content) = body {
        json::set(
            &mut operation,
            "/requestBody",
            json!({"required": true, "content": content}),
        );
    }
    operation
}

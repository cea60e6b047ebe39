//! What there is: `/api`, `/apis` and their groups, one by one and all at once.

use crate::api::Api;
use crate::kinds::{Kinds, Resource, api_version};
use crate::negotiate::{Accept, Body, parameter, respond_text, respond_value};
use crate::status::ApiError;
use http::{HeaderMap, Response, header};
use serde_json::{Value, json};

/// Answers a path under `/api` or `/apis`.
pub(crate) fn serve(api: &Api, path: &str, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let kinds = api.inner.registry.current();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if let (["api" | "apis"], Some(version)) = (parts.as_slice(), aggregated(headers)) {
        let core = parts.first() == Some(&"api");
        let list = aggregated_list(&kinds, version, core);
        let mut response = respond_value(200, gzip(headers), &list);
        let media_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        if let Ok(value) = header::HeaderValue::try_from(media_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        response
            .headers_mut()
            .insert(header::VARY, header::HeaderValue::from_static("Accept"));
        return Ok(response);
    }
    let value = match parts.as_slice() {
        ["api"] => {
            let address = api
                .inner
                .options
                .advertise
                .map(|address| address.to_string())
                .unwrap_or_default();
            json!({"kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
        }
        ["apis"] => {
            let groups: Vec<Value> = kinds
                .groups
                .keys()
                .filter(|name| !name.is_empty())
                .map(|name| group(&kinds, name))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", version] => resources(&kinds, "", version)?,
        ["apis", name] if !name.is_empty() && kinds.groups.contains_key(*name) => {
            let mut one = group(&kinds, name);
            crate::json::set(&mut one, "/kind", "APIGroup");
            crate::json::set(&mut one, "/apiVersion", "v1");
            one
        }
        ["apis", name, version] if !name.is_empty() => resources(&kinds, name, version)?,
        ["apis", _] => return Ok(respond_text(404, "404 page not found\n")),
        _ => return Err(ApiError::no_such_resource()),
    };
    Ok(respond_value(200, gzip(headers), &value))
}

fn gzip(headers: &HeaderMap) -> Accept {
    let accept = Accept::of(headers).unwrap_or_else(|_| Accept::json());
    Accept {
        gzip: accept.gzip,
        ..Accept::json()
    }
}

/// The version of aggregated discovery that the client wants first, before the plain lists.
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    for choice in accept.split(',') {
        let choice = choice.trim();
        if parameter(choice, "as") != Some("APIGroupDiscoveryList") {
            if choice.starts_with("application/json") && !choice.contains("as=") {
                return None;
            }
            continue;
        }
        match parameter(choice, "v") {
            Some("v2") if choice.starts_with("application/json") => return Some("v2"),
            Some("v2beta1") if choice.starts_with("application/json") => return Some("v2beta1"),
            _ => {}
        }
    }
    None
}

fn group(kinds: &Kinds, name: &str) -> Value {
    let versions: Vec<Value> = kinds
        .groups
        .get(name)
        .into_iter()
        .flat_map(|group| &group.versions)
        .map(|(version, _)| json!({"groupVersion": api_version(name, version), "version": version}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": name, "versions": versions, "preferredVersion": preferred})
}

fn resources(kinds: &Kinds, group: &str, version: &str) -> Result<Value, ApiError> {
    let all = kinds.version(group, version).ok_or_else(ApiError::no_such_resource)?;
    let mut rows: Vec<Value> = Vec::new();
    for resource in all {
        let mut row = json!({"name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": resource.verbs});
        for (field, list) in [
            ("shortNames", &resource.short_names),
            ("categories", &resource.categories),
        ] {
            if !list.is_empty() {
                crate::json::set(&mut row, &format!("/{field}"), json!(list));
            }
        }
        if !resource.storage_hash.is_empty() {
            crate::json::set(&mut row, "/storageVersionHash", resource.storage_hash.clone());
        }
        rows.push(row);
        for sub in &resource.subresources {
            let mut row = json!({"name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs});
            if !sub.group.is_empty() {
                crate::json::set(&mut row, "/group", sub.group.clone());
            }
            if !sub.version.is_empty() {
                crate::json::set(&mut row, "/version", sub.version.clone());
            }
            rows.push(row);
        }
    }
    let mut list = json!({"kind": "APIResourceList", "groupVersion": api_version(group, version), "resources": rows});
    if !group.is_empty() {
        crate::json::set(&mut list, "/apiVersion", "v1");
    }
    Ok(list)
}

fn aggregated_list(kinds: &Kinds, version: &str, core: bool) -> Value {
    let items: Vec<Value> = kinds
        .groups
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, group)| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|(version, all)| {
                    let rows: Vec<Value> = all.iter().map(|resource| discovered(resource)).collect();
                    json!({"version": version, "resources": rows, "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !name.is_empty() {
                crate::json::set(&mut metadata, "/name", name.clone());
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items})
}

fn discovered(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut row = json!({
        "resource": resource.plural, "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs
    });
    for (field, list) in [
        ("shortNames", &resource.short_names),
        ("categories", &resource.categories),
    ] {
        if !list.is_empty() {
            crate::json::set(&mut row, &format!("/{field}"), json!(list));
        }
    }
    let subs: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            let own = !sub.version.is_empty();
            let (group, version) = if own {
                (&sub.group, &sub.version)
            } else {
                (&resource.group, &resource.version)
            };
            json!({"subresource": sub.name, "responseKind": kind(group, version, &sub.kind), "verbs": sub.verbs})
        })
        .collect();
    if !subs.is_empty() {
        crate::json::set(&mut row, "/subresources", subs);
    }
    row
}

/// The paths that are served.
pub(crate) fn paths(api: &Api) -> Value {
    let kinds = api.inner.registry.current();
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for (name, group) in kinds.groups.iter().filter(|(name, _)| !name.is_empty()) {
        paths.push(format!("/apis/{name}"));
        paths.extend(
            group
                .versions
                .iter()
                .map(|(version, _)| format!("/apis/{name}/{version}")),
        );
    }
    paths.sort();
    json!({"paths": paths})
}

//! One request through the API: who, may they, what.

use crate::api::{Api, PodRequest};
use crate::kinds::Resource;
use crate::negotiate::{self, Accept, Body, add_warnings, respond_value};
use crate::request::RequestInfo;
use crate::status::ApiError;
use crate::user::User;
use crate::{auth, discovery, openapi, review, verbs};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use serde_json::Value;
use std::sync::Arc;
use time::OffsetDateTime;

/// A request for a resource on its way.
pub(crate) struct Call {
    pub(crate) api: Api,
    pub(crate) user: User,
    pub(crate) info: RequestInfo,
    pub(crate) resource: Arc<Resource>,
    pub(crate) accept: Accept,
    pub(crate) headers: HeaderMap,
    pub(crate) warnings: Vec<String>,
    /// When it came: every time it writes is this one.
    pub(crate) now: OffsetDateTime,
}

impl Call {
    /// 404 of the object asked for.
    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, &self.info.name)
    }

    /// 422 of the object.
    pub(crate) fn invalid(&self, name: &str, errors: &[crate::schema::FieldError]) -> ApiError {
        ApiError::invalid(&self.resource.group, &self.resource.kind, name, errors)
    }

    /// Whether the request may not change anything.
    pub(crate) fn dry_run(&self) -> bool {
        self.info.query.has("dryRun")
    }

    /// Who is named as the owner of the fields that are written.
    pub(crate) fn manager(&self) -> String {
        let given = self.info.query.text("fieldManager");
        if !given.is_empty() {
            return given.to_owned();
        }
        let agent = self
            .headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok());
        let name = agent.and_then(|agent| agent.split('/').next()).unwrap_or_default();
        if name.is_empty() {
            "unknown".to_owned()
        } else {
            name.chars().take(128).collect()
        }
    }
}

/// Answers a request.
pub(crate) async fn route(api: &Api, user: User, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let info = RequestInfo::parse(request.method(), request.uri());
    let user = auth::impersonate(api, user, request.headers())?;
    auth::authorize(api, &user, &info)?;
    if !info.is_resource {
        return other(api, &info, request.headers());
    }
    let kinds = api.inner.registry.current();
    let resource = kinds.resource(&info.group, &info.version, &info.resource);
    let resource = resource.ok_or_else(ApiError::no_such_resource)?.clone();
    check_path(&info, &resource)?;
    let pod_stream = matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward");
    if pod_stream && resource.is("", "pods") {
        return pod_request(api, &resource, &info, request).await;
    }
    let (parts, body) = request.into_parts();
    let mut call = Call {
        accept: Accept::of(&parts.headers)?,
        api: api.clone(),
        user,
        info,
        resource,
        headers: parts.headers,
        warnings: Vec::new(),
        now: api.now(),
    };
    if let Some(deprecation) = call
        .resource
        .custom
        .as_ref()
        .and_then(|custom| custom.deprecation.clone())
    {
        call.warnings.push(deprecation);
    }
    let body = negotiate::read(body).await?;
    let mut response = match dispatch(&mut call, body).await {
        Ok(response) => response,
        Err(error) => negotiate::respond_error(&error, call.accept),
    };
    add_warnings(&mut response, &call.warnings);
    Ok(response)
}

/// Refuses paths that no resource has and methods that this one has not.
fn check_path(info: &RequestInfo, resource: &Resource) -> Result<(), ApiError> {
    let inside = !info.namespace.is_empty() && info.resource != "namespaces";
    if info.too_long || (inside && !resource.namespaced) {
        return Err(ApiError::no_such_resource());
    }
    if !info.name.is_empty() && resource.namespaced && info.namespace.is_empty() {
        let named = matches!(info.verb.as_str(), "get" | "update" | "patch" | "delete") || !info.subresource.is_empty();
        if named {
            return Err(ApiError::no_such_resource());
        }
    }
    let verbs = match info.subresource.as_str() {
        "" => &resource.verbs,
        name => match resource.subresource(name) {
            Some(sub) => &sub.verbs,
            None => return Err(ApiError::no_such_resource()),
        },
    };
    let whole = info.subresource.is_empty() && info.name.is_empty();
    let fits = match info.verb.as_str() {
        "create" if info.subresource.is_empty() => info.name.is_empty() && (inside || !resource.namespaced),
        "update" | "patch" => !whole,
        "deletecollection" => inside || !resource.namespaced,
        _ => true,
    };
    if !fits || !verbs.contains(&info.verb) {
        return Err(ApiError::method_not_allowed());
    }
    Ok(())
}

async fn dispatch(call: &mut Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let (verb, subresource) = (call.info.verb.clone(), call.info.subresource.clone());
    if let Some(answer) = review::answer(call, &body).await {
        let (code, value) = answer?;
        return Ok(respond_value(code, call.accept, &value));
    }
    match (verb.as_str(), subresource.as_str()) {
        (_, "scale") => verbs::scale::serve(call, &body).await,
        ("create", "eviction") => verbs::pod::evict(call, &body).await,
        ("create", "binding") => verbs::pod::bind(call, &body).await,
        ("get", _) => verbs::read::get(call),
        ("list", _) => verbs::read::list(call),
        ("watch", _) => verbs::watch::start(call),
        ("create", "") if call.resource.is("", "bindings") => verbs::pod::bind(call, &body).await,
        ("create", _) => verbs::write::create(call, &body).await,
        ("update", _) => verbs::write::update(call, &body).await,
        ("patch", _) => verbs::patch::patch(call, &body).await,
        ("delete", _) => verbs::delete::delete(call, &body).await,
        ("deletecollection", _) => verbs::delete::delete_collection(call, &body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Paths that are no resource's.
fn other(api: &Api, info: &RequestInfo, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let path = info.path.trim_end_matches('/');
    let first = path.split('/').nth(1).unwrap_or_default();
    if !matches!(info.verb.as_str(), "get" | "head") {
        return Err(ApiError::method_not_allowed());
    }
    match first {
        "healthz" | "livez" | "readyz" => Ok(negotiate::respond_text(200, health(first, info.query.has("verbose")))),
        "version" if path == "/version" => Ok(respond_value(200, Accept::json(), &version())),
        "api" | "apis" => discovery::serve(api, path, headers),
        "openapi" => openapi::serve(api, path, headers),
        "openid" if path == "/openid/v1/jwks" => Ok(respond_value(200, Accept::json(), &api.inner.tokens.key_set())),
        ".well-known" if path == "/.well-known/openid-configuration" => {
            Ok(respond_value(200, Accept::json(), &auth::openid_configuration()))
        }
        "version" => Err(ApiError::no_such_resource()),
        "" => Ok(respond_value(200, Accept::json(), &discovery::paths(api))),
        _ => Ok(negotiate::respond_text(404, "404 page not found\n")),
    }
}

fn health(which: &str, verbose: bool) -> String {
    if verbose {
        format!("[+]ping ok\n[+]storage ok\n{which} check passed\n")
    } else {
        "ok".to_owned()
    }
}

/// The version of Kubernetes that this API equals.
fn version() -> Value {
    serde_json::json!({
        "major": "1", "minor": "33", "emulationMajor": "1", "emulationMinor": "33",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "32",
        "gitVersion": "v1.33.0+local", "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64"
    })
}

/// Hands a pod's logs and streams to the node.
async fn pod_request(
    api: &Api,
    resource: &Resource,
    info: &RequestInfo,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let stored = api.inner.store.get("pods", &info.namespace, &info.name);
    let stored = stored.ok_or_else(|| ApiError::not_found("", "pods", &info.name))?;
    let pod = api.value(resource, &stored);
    check_container(info, &pod)?;
    if crate::json::text(&pod, "/spec/nodeName").is_empty() {
        if info.subresource == "log" {
            return Ok(negotiate::respond_text(200, ""));
        }
        let message = format!("pod {} does not have a host assigned", info.name);
        return Err(ApiError::bad_request(message));
    }
    let Some(nodes) = &api.inner.options.nodes else {
        let message = format!(
            "no node is connected: {} of pod {:?} cannot be served",
            info.subresource, info.name
        );
        return Err(ApiError::new(503, "ServiceUnavailable", message));
    };
    let target = PodRequest {
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        pod,
        subresource: info.subresource.clone(),
    };
    Ok(nodes.serve(target, request).await)
}

/// The container must be named where there is more than one, and be one of the pod's.
fn check_container(info: &RequestInfo, pod: &Value) -> Result<(), ApiError> {
    if info.subresource == "portforward" {
        return Ok(());
    }
    let names = |field: &str| -> Vec<String> {
        let list = crate::json::list(pod, field).iter();
        list.map(|container| crate::json::text(container, "/name").to_owned())
            .collect()
    };
    let (containers, init) = (names("/spec/containers"), names("/spec/initContainers"));
    let wanted = info.query.text("container");
    let name = &info.name;
    if wanted.is_empty() {
        if containers.len() + init.len() <= 1 || (containers.len() == 1 && init.is_empty()) {
            return Ok(());
        }
        let all = containers.join(" ");
        let message = if init.is_empty() {
            format!("a container name must be specified for pod {name}, choose one of: [{all}]")
        } else {
            let init = init.join(" ");
            format!(
                "a container name must be specified for pod {name}, choose one of: [{all}] or one of the init containers: [{init}]"
            )
        };
        return Err(ApiError::bad_request(message));
    }
    if containers.iter().chain(&init).any(|container| container == wanted) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "container {wanted} is not valid for pod {name}"
    )))
}

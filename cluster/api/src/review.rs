//! Questions that are posted and answered, and never stored: who am I, may I, whose token is this, a token please.

use crate::auth::{self, Bound, Claims};
use crate::json;
use crate::negotiate;
use crate::rbac::{self, Attributes};
use crate::schema::FieldError;
use crate::service::Call;
use crate::status::ApiError;
use crate::timestamp::rfc3339;
use crate::user::User;
use crate::verbs::object::uuid;
use serde_json::{Value, json};
use time::Duration;

/// The shortest life of a token in seconds.
const SHORTEST: i64 = 600;
/// The longest.
const LONGEST: i64 = 1 << 32;
/// What a token gets that asks for nothing.
const USUAL: i64 = 3600;

/// The code and the object, if the request is such a question.
pub(crate) async fn answer(call: &mut Call, body: &[u8]) -> Option<Result<(u16, Value), ApiError>> {
    if call.info.verb != "create" || call.resource.custom.is_some() {
        return None;
    }
    let (group, plural) = (call.resource.group.clone(), call.resource.plural.clone());
    let question = match (group.as_str(), plural.as_str(), call.info.subresource.as_str()) {
        ("authentication.k8s.io" | "authorization.k8s.io", _, "") => call.resource.kind.clone(),
        ("", "serviceaccounts", "token") => "TokenRequest".to_owned(),
        _ => return None,
    };
    let mut value = match negotiate::decode(&call.headers, body, &question) {
        Ok(decoded) => decoded.value,
        Err(error) => return Some(Err(error)),
    };
    let (owner, version) = if question == "TokenRequest" {
        ("authentication.k8s.io", "v1")
    } else {
        (group.as_str(), "v1")
    };
    {
        let map = json::as_object(&mut value);
        map.insert("kind".to_owned(), question.into());
        map.insert("apiVersion".to_owned(), format!("{owner}/{version}").into());
        json::default(map, "metadata", json!({}));
    }
    let done = match plural.as_str() {
        "tokenreviews" => token_review(call, &mut value),
        "selfsubjectreviews" => {
            json::set(&mut value, "/metadata/creationTimestamp", rfc3339(call.now));
            json::set(&mut value, "/status", json!({"userInfo": user_info(&call.user)}));
            Ok(())
        }
        "selfsubjectrulesreviews" => rules_review(call, &mut value),
        "serviceaccounts" => token_request(call, &mut value),
        _ => access_review(call, &mut value),
    };
    Some(done.map(|()| (201, value)))
}

/// `userInfo` of a user.
pub(crate) fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        json::set(&mut info, "/uid", user.uid.clone());
    }
    if !user.extra.is_empty() {
        json::set(&mut info, "/extra", json!(user.extra));
    }
    info
}

fn token_review(call: &Call, value: &mut Value) -> Result<(), ApiError> {
    let token = json::text(value, "/spec/token").to_owned();
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let mut audiences = json::texts(value, "/spec/audiences");
    let asked = !audiences.is_empty();
    if !asked {
        audiences.push(auth::API_AUDIENCE.to_owned());
    }
    let status = match auth::token_user(&call.api, &token, &audiences) {
        Ok((user, claims)) => {
            let fitting: Vec<String> = audiences
                .into_iter()
                .filter(|one| claims.audiences.contains(one))
                .collect();
            json!({"authenticated": true, "user": user_info(&user), "audiences": fitting})
        }
        Err(reason) => json!({"user": {}, "error": refusal(&reason)}),
    };
    json::set(value, "/status", status);
    Ok(())
}

/// Why a token is not taken, after the sentence that all such answers begin with.
fn refusal(reason: &str) -> String {
    const BROKEN: &str = "invalid bearer token";
    if reason == BROKEN {
        BROKEN.to_owned()
    } else {
        format!("[{BROKEN}, {reason}]")
    }
}

fn rules_review(call: &Call, value: &mut Value) -> Result<(), ApiError> {
    let namespace = json::text(value, "/spec/namespace").to_owned();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let roles = call.api.inner.roles.current(&call.api.inner.store);
    let (resources, others) = rbac::rules_of(&*roles, &call.user.name, &call.user.groups, &namespace);
    let status = json!({"resourceRules": resources, "nonResourceRules": others, "incomplete": false});
    json::set(value, "/status", status);
    Ok(())
}

/// SubjectAccessReview, SelfSubjectAccessReview, LocalSubjectAccessReview.
fn access_review(call: &Call, value: &mut Value) -> Result<(), ApiError> {
    let own = call.resource.kind == "SelfSubjectAccessReview";
    let (user, groups) = if own {
        (call.user.name.clone(), call.user.groups.clone())
    } else {
        (
            json::text(value, "/spec/user").to_owned(),
            json::texts(value, "/spec/groups"),
        )
    };
    let wrong = |field: &str, detail: &str| {
        let error = FieldError::invalid(field, Value::Null, detail);
        ApiError::invalid("authorization.k8s.io", "", "", &[error])
    };
    let (resource, other) = (
        value.pointer("/spec/resourceAttributes").cloned(),
        value.pointer("/spec/nonResourceAttributes").cloned(),
    );
    if resource.is_some() == other.is_some() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        return Err(wrong("spec.resourceAttributes", detail));
    }
    if !own && user.is_empty() && groups.is_empty() {
        return Err(wrong("spec.user", "at least one of user or group must be specified"));
    }
    let asked = resource.or(other).unwrap_or_default();
    let namespace = json::text(&asked, "/namespace");
    if call.resource.kind == "LocalSubjectAccessReview" && namespace != call.info.namespace {
        let detail = format!("must be {}", call.info.namespace);
        return Err(wrong("spec.resourceAttributes.namespace", &detail));
    }
    let attributes = Attributes {
        user: &user,
        groups: &groups,
        verb: json::text(&asked, "/verb"),
        group: json::text(&asked, "/group"),
        resource: json::text(&asked, "/resource"),
        subresource: json::text(&asked, "/subresource"),
        name: json::text(&asked, "/name"),
        namespace,
        path: json::text(&asked, "/path"),
    };
    let decision = auth::decide(&call.api, &attributes);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        json::set(&mut status, "/reason", decision.reason);
    }
    json::set(value, "/status", status);
    Ok(())
}

/// Issues a token for the service account that the path names.
fn token_request(call: &Call, value: &mut Value) -> Result<(), ApiError> {
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    let account = call.api.find("serviceaccounts", &namespace, &name);
    let account = account.ok_or_else(|| ApiError::not_found("", "serviceaccounts", &name))?;
    let mut audiences = json::texts(value, "/spec/audiences");
    if audiences.is_empty() {
        audiences.push(auth::API_AUDIENCE.to_owned());
    }
    let seconds = value
        .pointer("/spec/expirationSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(USUAL);
    let wrong = |detail: &str| {
        let error = FieldError::invalid("spec.expirationSeconds", seconds, detail);
        ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &[error])
    };
    if seconds < SHORTEST {
        return Err(wrong("may not specify a duration less than 10 minutes"));
    }
    if seconds > LONGEST {
        return Err(wrong("may not specify a duration larger than 2^32 seconds"));
    }
    let bound = bound(call, value, &name)?;
    let issued = call.now.unix_timestamp();
    let claims = Claims {
        namespace: namespace.clone(),
        service_account: name.clone(),
        uid: json::text(&account, "/metadata/uid").to_owned(),
        audiences: audiences.clone(),
        issued,
        expires: issued + seconds,
        id: uuid(),
        bound,
    };
    let token = call
        .api
        .inner
        .tokens
        .sign(&claims)
        .ok_or_else(|| ApiError::internal("the token cannot be signed"))?;
    json::set(
        value,
        "/metadata",
        json!({"name": name, "namespace": namespace, "creationTimestamp": rfc3339(call.now)}),
    );
    json::set(value, "/spec/audiences", audiences);
    json::set(value, "/spec/expirationSeconds", seconds);
    if value.pointer("/spec/boundObjectRef").is_none() {
        json::set(value, "/spec/boundObjectRef", Value::Null);
    }
    let expires = rfc3339(call.now + Duration::seconds(seconds));
    json::set(
        value,
        "/status",
        json!({"token": token, "expirationTimestamp": expires}),
    );
    Ok(())
}

/// The object that the token is bound to.
fn bound(call: &Call, value: &Value, account: &str) -> Result<Option<Bound>, ApiError> {
    let Some(reference) = value
        .pointer("/spec/boundObjectRef")
        .filter(|reference| reference.is_object())
    else {
        return Ok(None);
    };
    let namespace = call.info.namespace.as_str();
    let (name, wanted) = (json::text(reference, "/name").to_owned(), json::text(reference, "/uid"));
    let collection = match (json::text(reference, "/apiVersion"), json::text(reference, "/kind")) {
        ("v1", "Pod") => "pods",
        ("v1", "Secret") => "secrets",
        (version, kind) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {}{version}, Kind={kind}",
                if version.contains('/') { "" } else { "/" }
            )));
        }
    };
    let object = call
        .api
        .find(collection, namespace, &name)
        .ok_or_else(|| ApiError::not_found("", collection, &name))?;
    let uid = json::text(&object, "/metadata/uid").to_owned();
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", collection, &name, &why));
    }
    if collection == "secrets" {
        return Ok(Some(Bound::Secret { name, uid }));
    }
    let owner = json::text(&object, "/spec/serviceAccountName");
    if owner != account {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let node = json::text(&object, "/spec/nodeName").to_owned();
    Ok(Some(Bound::Pod { name, uid, node }))
}

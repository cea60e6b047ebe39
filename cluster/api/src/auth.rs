//! Who a request is from and whether it is allowed.
//!
//! In: certificates, tokens, headers; role objects. Out: a user, or 401; leave, or 403.

mod roles;
mod token;

pub(crate) use roles::RoleCache;
pub(crate) use token::{API_AUDIENCE, Bound, Claims, Tokens, openid_configuration};

use crate::api::Api;
use crate::json;
use crate::rbac::{self, Attributes, Decision};
use crate::request::RequestInfo;
use crate::status::ApiError;
use crate::user::{AUTHENTICATED, User};
use http::{HeaderMap, header};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The user that a verified client certificate names: the common name, with the organizations as groups.
pub(crate) fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .collect();
    Some(User::new(name, &groups))
}

/// The user of a request over a socket: by token if there is one, else by certificate, else nobody.
pub(crate) fn authenticate(api: &Api, headers: &HeaderMap, certificate: Option<&User>) -> Result<User, ApiError> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = authorization.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match (certificate, token) {
        (Some(user), _) => Ok(user.clone()),
        (None, Some(token)) => token_user(api, token, &[token::API_AUDIENCE.to_owned()])
            .map(|(user, _)| user)
            .map_err(|_| ApiError::unauthorized()),
        (None, None) => Ok(User::anonymous()),
    }
}

/// The user of a token that is valid for one of the audiences, and the claims; else why not.
pub(crate) fn token_user(api: &Api, token: &str, audiences: &[String]) -> Result<(User, Claims), String> {
    let claims = api.inner.tokens.verify(token, api.now().unix_timestamp())?;
    if !audiences.iter().any(|wanted| claims.audiences.contains(wanted)) {
        return Err(format!(
            "token audiences {:?} is invalid for the target audiences {audiences:?}",
            claims.audiences
        ));
    }
    let (namespace, name) = (&claims.namespace, &claims.service_account);
    let alive = |collection: &str, name: &str, uid: &str| -> Result<(), String> {
        let found = api.find(collection, namespace, name);
        match found {
            Some(object) if json::text(&object, "/metadata/uid") == uid => Ok(()),
            Some(_) => Err(format!(
                "{collection} {namespace}/{name} has another uid than the token's"
            )),
            None => Err(format!("{collection} {namespace}/{name} of the token has been deleted")),
        }
    };
    alive("serviceaccounts", name, &claims.uid)?;
    let mut user = User::service_account(namespace, name, &claims.uid);
    let mut extra = |key: &str, value: &str| {
        user.extra
            .insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    extra("credential-id", &format!("JTI={}", claims.id));
    match &claims.bound {
        Some(Bound::Pod { name, uid, node }) => {
            alive("pods", name, uid)?;
            extra("pod-name", name);
            extra("pod-uid", uid);
            if !node.is_empty() {
                extra("node-name", node);
            }
        }
        Some(Bound::Secret { name, uid }) => alive("secrets", name, uid)?,
        None => {}
    }
    Ok((user, claims))
}

/// Whom the user acts for, where the request says so and they may.
pub(crate) fn impersonate(api: &Api, user: User, headers: &HeaderMap) -> Result<User, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.map(str::to_owned).collect()
    };
    let Some(name) = text("impersonate-user") else {
        if headers.contains_key("impersonate-group") || headers.contains_key("impersonate-uid") {
            return Err(ApiError::bad_request(
                "requested [{Group}] without impersonating a user",
            ));
        }
        return Ok(user);
    };
    let mut groups = all("impersonate-group");
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let (resource, namespace, object) = match account {
        Some((namespace, name)) => ("serviceaccounts", namespace, name),
        None => ("users", "", name),
    };
    let may = |resource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            user: &user.name,
            groups: &user.groups,
            verb: "impersonate",
            resource,
            name,
            namespace,
            ..Attributes::default()
        };
        let decision = decide(api, &attributes);
        if decision.allowed {
            return Ok(());
        }
        let why = rbac::forbidden_message(&attributes);
        Err(ApiError::forbidden("", resource, name, &why))
    };
    may(resource, namespace, object)?;
    for group in &groups {
        may("groups", "", group)?;
    }
    if groups.is_empty()
        && let Some((namespace, _)) = account
    {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    if name != "system:anonymous" && !groups.iter().any(|group| group == AUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    Ok(User {
        name: name.to_owned(),
        groups,
        ..User::default()
    })
}

/// Asks the roles.
pub(crate) fn decide(api: &Api, attributes: &Attributes<'_>) -> Decision {
    rbac::authorize(&*api.inner.roles.current(&api.inner.store), attributes)
}

/// Refuses what the user may not do.
pub(crate) fn authorize(api: &Api, user: &User, info: &RequestInfo) -> Result<(), ApiError> {
    let attributes = Attributes {
        user: &user.name,
        groups: &user.groups,
        verb: &info.verb,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        name: &info.name,
        namespace: &info.namespace,
        path: if info.is_resource { "" } else { &info.path },
    };
    let decision = decide(api, &attributes);
    if decision.allowed {
        return Ok(());
    }
    let mut why = rbac::forbidden_message(&attributes);
    if !decision.reason.is_empty() {
        why = format!("{why}: {}", decision.reason);
    }
    if !info.is_resource {
        return Err(ApiError {
            details: Some(serde_json::json!({})),
            ..ApiError::new(403, "Forbidden", format!("forbidden: {why}"))
        });
    }
    Err(ApiError::forbidden(&info.group, &info.resource, &info.name, &why))
}

//! What a request asks for, read from its method, path and query.
//!
//! In: the request line. Out: [`RequestInfo`] and typed options. Never: bodies, users, objects.

use crate::status::ApiError;
use http::{Method, Uri};

/// The decoded query parameters in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of a key; empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value.as_str())
    }

    /// All values of a key.
    pub fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// A Boolean as Kubernetes reads one: absent, `false` and `0` are false, all else is true.
    pub fn flag(&self, key: &str) -> bool {
        self.has(key) && !matches!(self.text(key).to_ascii_lowercase().as_str(), "false" | "0")
    }

    /// A number; empty is none.
    pub fn number(&self, key: &str) -> Result<Option<i64>, ApiError> {
        let text = self.text(key);
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = || ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
        text.parse().map(Some).map_err(|_| wrong())
    }
}

/// Decodes percent escapes (and `+` in queries); what is no escape stays.
fn decode(text: &str, plus: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if plus => out.push(b' '),
            b'%' => {
                let mut rest = bytes.clone();
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => {
                        out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                        bytes = rest;
                    }
                    _ => out.push(byte),
                }
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A request, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; of other paths the method.
    pub verb: String,
    /// The decoded path.
    pub path: String,
    /// Whether the path is one of a resource.
    pub is_resource: bool,
    /// The API group, empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The namespace, empty for cluster-wide paths.
    pub namespace: String,
    /// The plural.
    pub resource: String,
    /// The object's name; for lists the one that a field selector asks for.
    pub name: String,
    /// The subresource.
    pub subresource: String,
    /// The query.
    pub query: Query,
    /// Whether the path goes on after the subresource.
    pub too_long: bool,
}

impl RequestInfo {
    /// Takes a request apart.
    pub fn parse(method: &Method, uri: &Uri) -> Self {
        let path = decode(uri.path(), false);
        let mut info = Self {
            verb: method.as_str().to_ascii_lowercase(),
            query: Query::parse(uri.query().unwrap_or_default()),
            ..Self::default()
        };
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let rest = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => {
                info.path = path;
                return info;
            }
        };
        info.is_resource = true;
        info.take_resource(rest);
        info.verb = info.resource_verb(method).to_owned();
        if info.name.is_empty() && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
            info.name = selected_name(info.query.text("fieldSelector"));
        }
        info.path = path;
        info
    }

    fn take_resource(&mut self, segments: &[&str]) {
        let mut rest = segments;
        // `namespaces/x` and its subresources are the Namespace itself, `namespaces/x/pods` is inside of it.
        if let ["namespaces", namespace, more @ ..] = segments {
            self.namespace = (*namespace).to_owned();
            if let [first, ..] = more
                && !matches!(*first, "status" | "finalize")
            {
                rest = more;
            }
        }
        let mut parts = rest.iter().map(|part| (*part).to_owned());
        self.resource = parts.next().unwrap_or_default();
        self.name = parts.next().unwrap_or_default();
        self.subresource = parts.next().unwrap_or_default();
        self.too_long = parts.next().is_some();
    }

    fn resource_verb(&self, method: &Method) -> &'static str {
        let named = !self.name.is_empty();
        match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            Method::GET | Method::HEAD if named => "get",
            Method::GET | Method::HEAD if self.query.flag("watch") => "watch",
            Method::GET | Method::HEAD => "list",
            _ => "",
        }
    }
}

/// The name in a field selector that asks for one.
fn selected_name(selector: &str) -> String {
    let terms = selector
        .split(',')
        .filter_map(|term| term.strip_prefix("metadata.name="));
    let name = terms
        .map(|name| name.trim_start_matches('='))
        .next()
        .unwrap_or_default();
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::parse(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    fn parts(info: &RequestInfo) -> [&str; 7] {
        [
            &info.verb,
            &info.group,
            &info.version,
            &info.namespace,
            &info.resource,
            &info.name,
            &info.subresource,
        ]
    }

    #[test]
    fn a_path_is_taken_apart_as_kubernetes_does() {
        let get = info("GET", "/apis/apps/v1/namespaces/n/deployments/d/status");
        assert_eq!(parts(&get), ["get", "apps", "v1", "n", "deployments", "d", "status"]);
        let list = info("GET", "/api/v1/pods?limit=1");
        assert_eq!(parts(&list), ["list", "", "v1", "", "pods", "", ""]);
        let watch = info(
            "GET",
            "/api/v1/namespaces/n/pods?watch=1&fieldSelector=metadata.name%3Dp",
        );
        assert_eq!(parts(&watch), ["watch", "", "v1", "n", "pods", "p", ""]);
        let namespace = info("DELETE", "/api/v1/namespaces/n");
        assert_eq!(parts(&namespace), ["delete", "", "v1", "n", "namespaces", "n", ""]);
        let finalize = info("PUT", "/api/v1/namespaces/n/finalize");
        assert_eq!(
            parts(&finalize),
            ["update", "", "v1", "n", "namespaces", "n", "finalize"]
        );
        let all = info("DELETE", "/api/v1/namespaces/n/pods");
        assert_eq!(parts(&all), ["deletecollection", "", "v1", "n", "pods", "", ""]);
        assert!(!info("GET", "/apis/apps/v1").is_resource);
        assert_eq!(info("GET", "/healthz").verb, "get");
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+d&watch&pretty=0&limit=x&broken=%zz");
        assert_eq!(query.text("labelSelector"), "a=b,c d");
        assert!(query.flag("watch"));
        assert!(!query.flag("pretty"));
        assert_eq!(
            query.number("limit").unwrap_err().message,
            "strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(query.text("broken"), "%zz");
    }
}

//! Bodies: which form a client sends and wants, and the texts themselves.
//!
//! In: headers and bytes. Out: JSON values, and responses in JSON or YAML, compressed where that pays. Never: what is in an object.

use crate::protobuf;
use crate::schema;
use crate::status::ApiError;
use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use std::io::Write as _;

/// Any error, as tower and kube have it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of requests and responses.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The largest request body; Kubernetes takes 3 MiB too.
const MAX_BODY: usize = 3 << 20;
/// Bodies from this size on are compressed for those who accept it.
const COMPRESS_FROM: usize = 128 << 10;
const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// How a response is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What objects are shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Object,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata and its List.
    Metadata,
}

/// What a client wants to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// The encoding.
    pub encoding: Encoding,
    /// The form of objects.
    pub form: Form,
    /// Whether compressed bodies are understood.
    pub gzip: bool,
}

/// The value of a parameter such as `as=Table`.
pub fn parameter<'a>(media_type: &'a str, name: &str) -> Option<&'a str> {
    let parts = media_type
        .split(';')
        .skip(1)
        .filter_map(|part| part.trim().split_once('='));
    parts.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

impl Accept {
    /// Reads `Accept` and `Accept-Encoding`; the first form that can be made is taken.
    pub fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let gzip = text(header::ACCEPT_ENCODING)
            .split(',')
            .any(|one| one.trim().starts_with("gzip"));
        let accept = match text(header::ACCEPT) {
            "" => "*/*",
            accept => accept,
        };
        for choice in accept.split(',') {
            let encoding = match choice.split(';').next().unwrap_or_default().trim() {
                "application/json" | "application/*" | "*/*" => Encoding::Json,
                "application/yaml" => Encoding::Yaml,
                _ => continue,
            };
            let form = match (parameter(choice, "as"), parameter(choice, "g")) {
                (None, _) => Form::Object,
                (Some("Table"), Some("meta.k8s.io")) => Form::Table,
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io")) => Form::Metadata,
                _ => continue,
            };
            return Ok(Self { encoding, form, gzip });
        }
        Err(ApiError::not_acceptable(MEDIA_TYPES))
    }

    /// Plain JSON.
    pub fn json() -> Self {
        Self {
            encoding: Encoding::Json,
            form: Form::Object,
            gzip: false,
        }
    }
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a whole body, if it is not too large.
pub async fn read(mut body: Body) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("the body could not be read: {error}")))?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > MAX_BODY {
                let message = format!("Request entity too large: limit is {MAX_BODY}");
                return Err(ApiError::new(413, "RequestEntityTooLarge", message));
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}

/// A request body as JSON, and the paths of its duplicate fields.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub value: Value,
    /// Duplicate fields, the last value of each kept.
    pub duplicates: Vec<String>,
}

/// The media type of a body without parameters; JSON where none is given.
pub fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let text = text.unwrap_or("application/json");
    text.split(';').next().unwrap_or_default().trim()
}

/// Reads an object. `kind` is what the error of a broken text names.
pub fn decode(headers: &HeaderMap, body: &[u8], kind: &str) -> Result<Decoded, ApiError> {
    match media_type(headers) {
        "application/json" | "" => json(body, kind),
        "application/yaml" => yaml(body).map_err(|error| {
            let why = error
                .message
                .trim_start_matches("error converting YAML to JSON: ")
                .to_owned();
            let message = format!(
                "the object provided is unrecognized (must be of type {kind}): {why} ({})",
                shown(body)
            );
            ApiError::bad_request(message)
        }),
        protobuf::MEDIA_TYPE => match protobuf::decode(body) {
            Ok(value) => Ok(Decoded {
                value,
                duplicates: Vec::new(),
            }),
            Err(error @ protobuf::ProtobufError::UnknownKind { .. }) => {
                Err(ApiError::new(415, "UnsupportedMediaType", error.to_string()))
            }
            Err(error) => Err(ApiError::bad_request(error.to_string())),
        },
        _ => Err(ApiError::unsupported_media_type(MEDIA_TYPES)),
    }
}

/// The beginning of a body as messages show it.
fn shown(body: &[u8]) -> String {
    const LONGEST: usize = 1024;
    let head = body.get(..LONGEST).unwrap_or(body);
    let dots = if body.len() > LONGEST { " ..." } else { "" };
    match head.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(head)),
        Some(_) => {
            let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{dots}")
        }
    }
}

/// The type that every object begins with, in the words of the server's language.
const TYPE_META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

fn json(body: &[u8], kind: &str) -> Result<Decoded, ApiError> {
    let refuse = |why: String| {
        Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {why} ({})",
            shown(body)
        )))
    };
    let name = |value: &Value| match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        _ => "bool",
    };
    match schema::parse_json(body) {
        Ok((value, duplicates)) if value.is_object() => {
            for field in ["kind", "apiVersion"] {
                match value.get(field) {
                    None | Some(Value::String(_) | Value::Null) => {}
                    Some(other) => {
                        let kind = if other.is_object() { "object" } else { name(other) };
                        return refuse(format!(
                            "json: cannot unmarshal {kind} into Go struct field .{field} of type string"
                        ));
                    }
                }
            }
            Ok(Decoded { value, duplicates })
        }
        Ok((Value::Null, duplicates)) => Ok(Decoded {
            value: Value::Object(serde_json::Map::new()),
            duplicates,
        }),
        Ok((value, _)) => refuse(format!(
            "json: cannot unmarshal {} into Go value of type {TYPE_META}",
            name(&value)
        )),
        Err(error) => refuse(json_error(body, &error)),
    }
}

/// The sentence of Go's parser where it is plain to see, else that of ours.
fn json_error(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(byte) if !matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            format!(
                "invalid character '{}' looking for beginning of value",
                char::from(*byte)
            )
        }
        _ => error.to_string(),
    }
}

/// YAML, with what its numbers lose on the way put right: `1.0` is one.
pub fn yaml(body: &[u8]) -> Result<Decoded, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("yaml: invalid UTF-8"))?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ApiError::bad_request(format!("error converting YAML to JSON: yaml: {error}")))?;
    Ok(Decoded {
        value: integral(value),
        duplicates: Vec::new(),
    })
}

fn integral(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(integral).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, integral(value))).collect(),
        Value::Number(number) => match number.as_f64() {
            // Whole and exactly representable, so the conversion is exact.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => (float as i64).into(),
            _ => Value::Number(number),
        },
        other => other,
    }
}

/// A response with a JSON text.
pub fn respond(code: u16, accept: Accept, text: Bytes) -> Response<Body> {
    let (media_type, text) = match accept.encoding {
        Encoding::Json => ("application/json", text),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&text).unwrap_or_default();
            let yaml = serde_saphyr::to_string(&value).unwrap_or_default();
            ("application/yaml", Bytes::from(yaml))
        }
    };
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, private"),
    );
    let text = match compress(&text, accept.gzip) {
        Some(packed) => {
            headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
            headers.insert(header::VARY, header::HeaderValue::from_static("Accept-Encoding"));
            packed
        }
        None => text,
    };
    headers.insert(header::CONTENT_LENGTH, text.len().into());
    *response.body_mut() = full(text);
    response
}

fn compress(text: &Bytes, accepted: bool) -> Option<Bytes> {
    if !accepted || text.len() < COMPRESS_FROM {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// A response with an object.
pub fn respond_value(code: u16, accept: Accept, value: &Value) -> Response<Body> {
    respond(code, accept, Bytes::from(value.to_string()))
}

/// A response with a plain text.
pub fn respond_text(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}

/// A refusal, in the encoding that was asked for.
pub fn respond_error(error: &ApiError, accept: Accept) -> Response<Body> {
    let accept = Accept {
        form: Form::Object,
        ..accept
    };
    let mut response = respond_value(error.code, accept, &error.body());
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Adds a `Warning` header per sentence.
pub fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let mut seen: Vec<&String> = Vec::new();
    for warning in warnings {
        if seen.contains(&warning) {
            continue;
        }
        seen.push(warning);
        let mut text = String::new();
        for c in warning.chars().filter(|c| !c.is_control()) {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        if let Ok(value) = header::HeaderValue::try_from(format!("299 - \"{text}\"").into_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Joins bodies of a list into its text, without reading them again.
pub fn join(head: &str, bodies: impl Iterator<Item = Bytes>, tail: &str) -> Bytes {
    let mut text = BytesMut::with_capacity(1024);
    text.extend_from_slice(head.as_bytes());
    for (position, body) in bodies.enumerate() {
        if position > 0 {
            text.extend_from_slice(b",");
        }
        text.extend_from_slice(&body);
    }
    text.extend_from_slice(tail.as_bytes());
    text.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn accept(text: &str) -> Result<Accept, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            header::HeaderValue::from_str(text).map_err(|_| ApiError::unauthorized())?,
        );
        Accept::of(&headers)
    }

    #[test]
    fn the_first_form_that_can_be_made_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(accept(table).unwrap().form, Form::Table);
        let protobuf_first = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io,application/json";
        assert_eq!(accept(protobuf_first).unwrap().form, Form::Object);
        assert_eq!(accept("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(accept("text/html").unwrap_err().code, 406);
    }

    #[test]
    fn yaml_numbers_become_what_json_has() {
        let decoded = yaml(b"a: 1.0\nb: 017\nc: 1.5\nd: yes\n").unwrap();
        assert_eq!(decoded.value, json!({"a": 1, "b": 15, "c": 1.5, "d": true}));
    }

    #[test]
    fn warnings_are_quoted_once_each() {
        let mut response = respond_text(200, "");
        add_warnings(&mut response, &["a \"b\"".to_owned(), "a \"b\"".to_owned()]);
        let all: Vec<_> = response.headers().get_all("warning").iter().collect();
        assert_eq!(all, [r#"299 - "a \"b\"""#]);
    }
}

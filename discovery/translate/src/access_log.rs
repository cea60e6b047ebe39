//! The access log, as Istio writes it where nobody says otherwise.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file;
use envoy_types::pb::google::protobuf::Any;
use mizzen_model::{AccessLog, AccessLogEncoding};
use prost::{Message, Name};

use crate::proto::any;
use crate::view::View;

const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The same as an object.
const JSON: [(&str, &str); 24] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

/// The access logs of a listener: none or one.
pub(crate) fn access_logs(view: &View<'_>) -> Vec<accesslog::AccessLog> {
    view.config().access_log.iter().map(access_log).collect()
}

fn access_log(wanted: &AccessLog) -> accesslog::AccessLog {
    let config = match wanted.encoding {
        AccessLogEncoding::Text => any(text_log(wanted)),
        AccessLogEncoding::Json => json_log(wanted),
    };
    accesslog::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn text_log(wanted: &AccessLog) -> file::FileAccessLog {
    let mut format = wanted.format.as_deref().unwrap_or(TEXT).to_owned();
    if !format.ends_with('\n') {
        format.push('\n');
    }
    let format = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(format)),
        ..Default::default()
    };
    let format = core::SubstitutionFormatString {
        format: Some(core::substitution_format_string::Format::TextFormatSource(format)),
        ..Default::default()
    };
    file::FileAccessLog {
        path: wanted.path.to_string(),
        access_log_format: Some(file::file_access_log::AccessLogFormat::LogFormat(format)),
    }
}

fn json_log(wanted: &AccessLog) -> Any {
    let own = wanted
        .format
        .as_deref()
        .and_then(|format| serde_json::from_str::<serde_json::Value>(format).ok());
    let fields = match own {
        Some(serde_json::Value::Object(fields)) => {
            fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect()
        }
        _ => JSON
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Sorted::text(value)))
            .collect(),
    };
    let log = SortedFileLog {
        path: wanted.path.to_string(),
        log_format: Some(SortedFormat {
            json_format: Some(SortedObject { fields }),
        }),
    };
    Any {
        type_url: file::FileAccessLog::type_url(),
        value: log.encode_to_vec(),
    }
}

fn sorted(value: &serde_json::Value) -> Sorted {
    let kind = match value {
        serde_json::Value::String(text) => SortedKind::Text(text.clone()),
        serde_json::Value::Object(fields) => SortedKind::Object(SortedObject {
            fields: fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect(),
        }),
        serde_json::Value::Array(values) => SortedKind::List(SortedList {
            values: values.iter().map(sorted).collect(),
        }),
        serde_json::Value::Bool(value) => SortedKind::Bool(*value),
        serde_json::Value::Number(number) => SortedKind::Number(number.as_f64().unwrap_or_default()),
        serde_json::Value::Null => SortedKind::Text(String::new()),
    };
    Sorted { kind: Some(kind) }
}

// The same on the wire as FileAccessLog, SubstitutionFormatString and google.protobuf.Struct, with maps that are encoded
// in the order of their keys: the generated ones have hash maps, whose order differs from run to run.

#[derive(Clone, PartialEq, Message)]
struct SortedFileLog {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "5")]
    log_format: Option<SortedFormat>,
}

#[derive(Clone, PartialEq, Message)]
struct SortedFormat {
    #[prost(message, optional, tag = "2")]
    json_format: Option<SortedObject>,
}

#[derive(Clone, PartialEq, Message)]
struct SortedObject {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Sorted>,
}

#[derive(Clone, PartialEq, Message)]
struct Sorted {
    #[prost(oneof = "SortedKind", tags = "2, 3, 4, 5, 6")]
    kind: Option<SortedKind>,
}

impl Sorted {
    fn text(text: &str) -> Self {
        Self {
            kind: Some(SortedKind::Text(text.to_owned())),
        }
    }
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum SortedKind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(message, tag = "5")]
    Object(SortedObject),
    #[prost(message, tag = "6")]
    List(SortedList),
}

#[derive(Clone, PartialEq, Message)]
struct SortedList {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Sorted>,
}

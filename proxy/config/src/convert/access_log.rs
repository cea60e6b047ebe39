//! Access logs.

use super::Result;
use super::fields::{extension, non_empty, unknown_extension, unsupported};
use super::format::format;
use crate::error::At;
use crate::format::Format;
use crate::listener::{AccessLog, AccessLogFormat, LogFilter};
use envoy_types::pb::envoy::config::accesslog::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::{file::v3 as file_pb, stream::v3 as stream_pb};
use envoy_types::pb::google::protobuf;
use std::sync::Arc;

/// Envoy's default text format.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

pub(super) fn access_logs(at: At<'_>, logs: &[pb::AccessLog]) -> Result<Box<[Arc<AccessLog>]>> {
    logs.iter()
        .enumerate()
        .map(|(i, log)| access_log(at.index("access_log", i), log).map(Arc::new))
        .collect()
}

fn access_log(at: At<'_>, log: &pb::AccessLog) -> Result<AccessLog> {
    let only = match log.filter.as_ref().map(|filter| filter.filter_specifier.as_ref()) {
        None => LogFilter::All,
        Some(Some(pb::access_log_filter::FilterSpecifier::ResponseFlagFilter(filter))) => {
            LogFilter::Flags(filter.flags.iter().map(|flag| flag.as_str().into()).collect())
        }
        Some(_) => return Err(unsupported(at.field("filter"), "an access log filter")),
    };
    let Some(pb::access_log::ConfigType::TypedConfig(any)) = log.config_type.as_ref() else {
        return Err(super::fields::missing(at.field("typed_config")));
    };
    let at = at.field("typed_config");
    if let Some(stdout) = extension::<stream_pb::StdoutAccessLog>(at, any)? {
        let format = match stdout.access_log_format {
            Some(stream_pb::stdout_access_log::AccessLogFormat::LogFormat(format)) => log_format(at, &format)?,
            None => AccessLogFormat::Text(format(at, DEFAULT)?),
        };
        return Ok(AccessLog {
            file: None,
            format,
            only,
        });
    }
    if let Some(file) = extension::<file_pb::FileAccessLog>(at, any)? {
        return file_log(at, &file, only);
    }
    Err(unknown_extension(at, &any.type_url))
}

#[expect(deprecated, reason = "the old spellings of formats are still valid in xDS v3")]
fn file_log(at: At<'_>, log: &file_pb::FileAccessLog, only: LogFilter) -> Result<AccessLog> {
    use file_pb::file_access_log::AccessLogFormat as Raw;
    let format = match log.access_log_format.as_ref() {
        Some(Raw::LogFormat(format)) => log_format(at, format)?,
        Some(Raw::Format(text)) => AccessLogFormat::Text(format(at, text)?),
        Some(Raw::JsonFormat(fields) | Raw::TypedJsonFormat(fields)) => json(at, fields)?,
        None => AccessLogFormat::Text(format(at, DEFAULT)?),
    };
    Ok(AccessLog {
        file: non_empty(&log.path).filter(|path| &**path != "/dev/stdout"),
        format,
        only,
    })
}

#[expect(deprecated, reason = "the old spellings of formats are still valid in xDS v3")]
fn log_format(at: At<'_>, raw: &core::SubstitutionFormatString) -> Result<AccessLogFormat> {
    use core::data_source::Specifier;
    use core::substitution_format_string::Format as Raw;
    match raw.format.as_ref() {
        Some(Raw::TextFormat(text)) => format(at.field("text_format"), text).map(AccessLogFormat::Text),
        Some(Raw::TextFormatSource(source)) => match source.specifier.as_ref() {
            Some(Specifier::InlineString(text)) => {
                format(at.field("text_format_source"), text).map(AccessLogFormat::Text)
            }
            _ => Err(unsupported(
                at.field("text_format_source"),
                "a format from elsewhere than an inline string",
            )),
        },
        Some(Raw::JsonFormat(fields)) => json(at.field("json_format"), fields),
        None => format(at, DEFAULT).map(AccessLogFormat::Text),
    }
}

fn json(at: At<'_>, fields: &protobuf::Struct) -> Result<AccessLogFormat> {
    let mut named = fields
        .fields
        .iter()
        .map(|(name, value)| match value.kind.as_ref() {
            Some(protobuf::value::Kind::StringValue(text)) => {
                format(at.named("fields", name), text).map(|format| (Arc::<str>::from(name.as_str()), format))
            }
            _ => Err(unsupported(
                at.named("fields", name),
                "a value that is not a format string",
            )),
        })
        .collect::<Result<Vec<(Arc<str>, Format)>>>()?;
    named.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(AccessLogFormat::Json(named.into()))
}

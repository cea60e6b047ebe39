//! Changes to headers, in a form that Envoy accepts whatever users write.

use envoy_types::pb::envoy::config::core::v3 as core;
use mizzen_model::{HeaderName, HeaderOps};

use core::header_value_option::HeaderAppendAction;

/// Changes as a route has them.
#[derive(Debug, Default)]
pub(super) struct Ops {
    pub(super) add: Vec<core::HeaderValueOption>,
    pub(super) remove: Vec<String>,
    /// Envoy changes the authority by a setting of its own.
    pub(super) authority: Option<String>,
}

/// Those of both; where both set a header, the second has it.
pub(super) fn ops(first: &HeaderOps, second: &HeaderOps) -> Ops {
    let mut done = Ops::default();
    for ops in [first, second] {
        for (name, value) in &ops.set {
            if matches!(name.as_str(), "host" | ":authority") {
                done.authority = Some(value.to_string());
            } else {
                done.add
                    .extend(option(name, value, HeaderAppendAction::OverwriteIfExistsOrAdd));
            }
        }
        for (name, value) in &ops.add {
            done.add
                .extend(option(name, value, HeaderAppendAction::AppendIfExistsOrAdd));
        }
        done.remove.extend(
            ops.remove
                .iter()
                .filter(|name| may_change(name))
                .map(ToString::to_string),
        );
    }
    done
}

fn may_change(name: &HeaderName) -> bool {
    !name.as_str().starts_with(':') && name.as_str() != "host"
}

fn option(name: &HeaderName, value: &str, action: HeaderAppendAction) -> Option<core::HeaderValueOption> {
    if !may_change(name) || value.chars().any(|c| matches!(c, '\0' | '\r' | '\n')) {
        return None;
    }
    Some(core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: name.to_string(),
            value: formatted(value),
            ..Default::default()
        }),
        append_action: action.into(),
        keep_empty_value: value.is_empty(),
        ..Default::default()
    })
}

/// Envoy replaces `%COMMAND%` in values, and refuses the whole configuration for one that it does not know. So a value keeps
/// its percent signs only if all of them belong to commands that it knows; else they stand for themselves.
fn formatted(value: &str) -> String {
    if value.contains('%') && !only_commands(value) {
        value.replace('%', "%%")
    } else {
        value.to_owned()
    }
}

fn only_commands(value: &str) -> bool {
    let parts: Vec<&str> = value.split('%').collect();
    // text, command, text, command, …, text
    parts.len() % 2 == 1 && parts.iter().skip(1).step_by(2).all(|command| is_command(command))
}

/// Commands without arguments, and those whose one argument is a header's name.
fn is_command(command: &str) -> bool {
    const PLAIN: [&str; 26] = [
        "", // %% is a percent sign
        "BYTES_RECEIVED",
        "CONNECTION_ID",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_LOCAL_ADDRESS",
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_LOCAL_PORT",
        "DOWNSTREAM_LOCAL_SUBJECT",
        "DOWNSTREAM_LOCAL_URI_SAN",
        "DOWNSTREAM_PEER_CERT",
        "DOWNSTREAM_PEER_FINGERPRINT_256",
        "DOWNSTREAM_PEER_SUBJECT",
        "DOWNSTREAM_PEER_URI_SAN",
        "DOWNSTREAM_REMOTE_ADDRESS",
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_TLS_CIPHER",
        "DOWNSTREAM_TLS_VERSION",
        "HOSTNAME",
        "PROTOCOL",
        "REQUESTED_SERVER_NAME",
        "RESPONSE_CODE_DETAILS",
        "RESPONSE_FLAGS",
        "ROUTE_NAME",
        "UPSTREAM_CLUSTER",
        "UPSTREAM_HOST",
    ];
    let of_header = |argument: &str| {
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '?');
        !argument.is_empty() && argument.chars().all(name) && argument.matches('?').count() <= 1
    };
    let argument = ["REQ(", "RESP("]
        .iter()
        .find_map(|name| command.strip_prefix(name)?.strip_suffix(')'));
    PLAIN.contains(&command) || argument.is_some_and(of_header)
}

#[cfg(test)]
mod tests {
    use super::formatted;

    #[test]
    fn a_percent_sign_of_no_command_stands_for_itself() {
        for (written, sent) in [
            ("plain", "plain"),
            ("50%", "50%%"),
            ("%NOT_A_COMMAND%", "%%NOT_A_COMMAND%%"),
            ("%PROTOCOL%", "%PROTOCOL%"),
            ("a %REQ(X-Id?:path)% b", "a %REQ(X-Id?:path)% b"),
            ("%PROTOCOL% 5%", "%%PROTOCOL%% 5%%"),
            ("100%% sure", "100%% sure"),
            ("%REQ()%", "%%REQ()%%"),
        ] {
            assert_eq!(formatted(written), sent);
        }
    }
}

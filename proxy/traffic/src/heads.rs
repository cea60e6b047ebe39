//! Changes that a proxy makes to heads on the way through.
//!
//! In: the received head, the route, what is known of both connections. Out: an [`Edit`] that says what the outgoing head
//! is. Nothing is copied but what is added.

use std::sync::Arc;

use mizzen_decide::Request as _;
use mizzen_http::{Connection, Edit, Fields, RequestHead, ResponseHead, Version};
use mizzen_proxy_config::{
    ForwardClientCert, HeaderAppend, HeaderOp, HeaderOps, HostRewrite, ServerHeader, WeightedCluster,
};

use crate::format::{self, Values};
use crate::info::Info;
use crate::metadata;
use crate::plan::Routed;
use crate::request::{INTERNAL, View};
use crate::upstream::Upstream;

/// The id of a request: a random UUID, where the client sent none.
#[derive(Debug, Clone, Copy)]
pub struct RequestId([u8; 36]);

impl RequestId {
    /// Version 4 from random bits.
    pub fn new(high: u64, low: u64) -> Self {
        let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let mut text = [b'-'; 36];
        let mut shift = 128;
        for (index, slot) in text.iter_mut().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                continue;
            }
            shift -= 4;
            let nibble = usize::try_from(bits >> shift & 15).unwrap_or(0);
            *slot = b"0123456789abcdef".get(nibble).copied().unwrap_or(b'0');
        }
        Self(text)
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the request's edit depends on besides the head.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The connection it came by.
    pub info: &'a Info,
    /// Its route; `None` when it is passed through.
    pub routed: Option<&'a Routed>,
    /// The chosen entry of the route's clusters.
    pub entry: Option<&'a WeightedCluster>,
    /// Number of this try, from 1.
    pub attempt: u32,
    /// Its id, if the proxy makes it.
    pub id: Option<&'a RequestId>,
    /// Protocol upgrade goes through.
    pub upgrade: bool,
    /// Host name of the endpoint.
    pub hostname: &'a str,
    /// For header values.
    pub values: Values<'a>,
}

/// Sets up `edit` for the request to this upstream. `text` is scratch space.
pub fn request(
    edit: &mut Edit,
    head: &RequestHead,
    bytes: &[u8],
    context: &RequestContext<'_>,
    upstream: &Upstream,
    text: &mut Vec<u8>,
) {
    let (fields, info) = (head.fields(), context.info);
    let view = View {
        head,
        bytes,
        secure: info.secure,
        edge: info.http.use_remote_address,
    };
    edit.begin(fields);
    if context.upgrade {
        edit.connection(Connection::Upgrade);
    }
    // Values that are set here are the proxy's own or were checked when they were received: a refusal only means that
    // the field is left out.
    let set = |edit: &mut Edit, name: &[u8], value: &[u8]| {
        let _left_out = edit.set(fields, bytes, name, value);
    };
    if let Some(id) = context.id {
        set(edit, b"x-request-id", id.as_bytes());
    }
    if fields.value(bytes, b"x-forwarded-proto").is_none() || info.http.use_remote_address {
        set(edit, b"x-forwarded-proto", view.scheme());
    }
    if info.http.use_remote_address && !info.http.skip_xff_append {
        let mut hops = view
            .header("x-forwarded-for")
            .map(|value| value.into_owned())
            .unwrap_or_default();
        if !hops.is_empty() {
            hops.push(b',');
        }
        hops.extend_from_slice(info.remote.ip().to_string().as_bytes());
        set(edit, b"x-forwarded-for", &hops);
    }
    if view.edge {
        for (name, _) in fields.pairs(bytes) {
            if name
                .get(..INTERNAL.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(INTERNAL.as_bytes()))
            {
                edit.remove(fields, bytes, name);
            }
        }
    }
    client_certificate(edit, fields, bytes, info);
    edit.remove(fields, bytes, metadata::PEER);
    edit.remove(fields, bytes, metadata::PEER_ID);
    if info.outbound() && upstream.mesh && !upstream.is_reused() {
        set(edit, metadata::PEER, info.worker.shared.metadata.as_bytes());
        set(
            edit,
            metadata::PEER_ID,
            info.worker.shared.settings.node_id().as_bytes(),
        );
    }
    let Some(routed) = context.routed else { return };
    if routed.host.attempt_count_to_upstream {
        set(edit, b"x-envoy-attempt-count", context.attempt.to_string().as_bytes());
    }
    if let Some(forward) = routed.forward() {
        if mizzen_decide::rewrite::path(&forward.path_rewrite, &routed.route.matches.path, view.path(), text) {
            let original = view.path();
            if edit.path(text).is_ok() {
                set(edit, b"x-envoy-original-path", original);
            }
        }
        let entry_host = context.entry.and_then(|entry| entry.host.as_deref());
        let header;
        let host = match (&forward.host_rewrite, entry_host) {
            (_, Some(host)) => Some(host.as_bytes()),
            (HostRewrite::To(host), None) => Some(host.as_bytes()),
            (HostRewrite::Endpoint, None) => Some(context.hostname.as_bytes()).filter(|name| !name.is_empty()),
            (HostRewrite::Header(name), None) => {
                header = view.header(name);
                header.as_deref()
            }
            (HostRewrite::None, None) => None,
        };
        if let Some(host) = host {
            if forward.append_x_forwarded_host {
                set(edit, b"x-forwarded-host", view.authority());
            }
            let _kept = edit.authority(host);
        }
    }
    let entry = context.entry.map(|entry| &entry.request_headers);
    for ops in order(
        routed,
        entry,
        &routed.route.request_headers,
        &routed.host.request_headers,
        |config| &config.request_headers,
    ) {
        apply(edit, fields, bytes, ops, &context.values, text);
    }
}

/// Header changes apply from the most specific to the least, unless the configuration says otherwise.
fn order<'a>(
    routed: &'a Routed,
    entry: Option<&'a HeaderOps>,
    route: &'a HeaderOps,
    host: &'a HeaderOps,
    config: impl Fn(&'a mizzen_proxy_config::RouteConfig) -> &'a HeaderOps,
) -> impl Iterator<Item = &'a HeaderOps> {
    let mut all = [entry, Some(route), Some(host), Some(config(&routed.config))];
    if routed.config.most_specific_wins {
        all.reverse();
    }
    all.into_iter().flatten().filter(|ops| !ops.is_empty())
}

fn apply(edit: &mut Edit, fields: &Fields, bytes: &[u8], ops: &HeaderOps, values: &Values<'_>, text: &mut Vec<u8>) {
    for op in &ops.ops {
        match op {
            HeaderOp::Remove(name) => {
                edit.remove(fields, bytes, name.as_bytes());
            }
            HeaderOp::Set(set) => {
                text.clear();
                format::write(&set.value, values, "", text);
                if text.is_empty() && !set.keep_empty {
                    continue;
                }
                let name = set.name.as_bytes();
                if matches!(&*set.name, ":authority" | "host") {
                    let _kept = edit.authority(text);
                    continue;
                }
                let present = fields.value(bytes, name).is_some();
                let _left_out = match (set.append, present) {
                    (HeaderAppend::Append, _) | (HeaderAppend::AddIfAbsent, false) => edit.add(name, text),
                    (HeaderAppend::AddIfAbsent, true) | (HeaderAppend::OverwriteIfExists, false) => Ok(()),
                    (HeaderAppend::Overwrite | HeaderAppend::OverwriteIfExists, _) => {
                        edit.set(fields, bytes, name, text)
                    }
                };
            }
        }
    }
}

/// `x-forwarded-client-cert`: who the client is, as far as it was proven on this connection.
fn client_certificate(edit: &mut Edit, fields: &Fields, bytes: &[u8], info: &Info) {
    const NAME: &[u8] = b"x-forwarded-client-cert";
    let mode = info.http.client_cert;
    let proven = info.peer.as_ref();
    match (mode, proven) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::Sanitize, _) | (_, None) => {
            edit.remove(fields, bytes, NAME);
        }
        (ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet, Some(_)) => {
            let Some(own) = &info.client_cert else { return };
            let before = fields
                .value(bytes, NAME)
                .filter(|_| mode == ForwardClientCert::AppendForward);
            let _left_out = match before {
                None => edit.set(fields, bytes, NAME, own.as_bytes()),
                Some(before) => {
                    let mut all = before.to_vec();
                    all.push(b',');
                    all.extend_from_slice(own.as_bytes());
                    edit.set(fields, bytes, NAME, &all)
                }
            };
        }
    }
}

/// What the response's edit depends on besides the head.
#[derive(Debug)]
pub struct ResponseContext<'a> {
    /// The connection it goes to.
    pub info: &'a Info,
    /// The request's route.
    pub routed: Option<&'a Routed>,
    /// The chosen entry of the route's clusters.
    pub entry: Option<&'a WeightedCluster>,
    /// Milliseconds until the upstream answered.
    pub upstream_millis: u128,
    /// Tries.
    pub attempts: u32,
    /// Version of the client.
    pub version: Version,
    /// The connection goes on.
    pub keep_alive: bool,
    /// The protocol changes with this response.
    pub upgrade: bool,
    /// For header values.
    pub values: Values<'a>,
}

/// Sets up `edit` for the response to the client.
pub fn response(edit: &mut Edit, head: &ResponseHead, bytes: &[u8], context: &ResponseContext<'_>, text: &mut Vec<u8>) {
    let (fields, info) = (head.fields(), context.info);
    edit.begin(fields);
    edit.connection(match (context.upgrade, context.keep_alive, context.version) {
        (true, ..) => Connection::Upgrade,
        (_, false, _) => Connection::Close,
        (_, true, Version::Http10) => Connection::KeepAlive,
        (_, true, Version::Http11) => Connection::Persistent,
    });
    let server = info.http.server_name.as_bytes();
    let _left_out = match info.http.server_header {
        ServerHeader::Overwrite => edit.set(fields, bytes, b"server", server),
        ServerHeader::AppendIfAbsent if fields.value(bytes, b"server").is_none() => edit.add(b"server", server),
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => Ok(()),
    };
    let mut digits = [0; 20];
    let _left_out = edit.set(
        fields,
        bytes,
        b"x-envoy-upstream-service-time",
        decimal(context.upstream_millis, &mut digits),
    );
    edit.remove(fields, bytes, metadata::PEER);
    edit.remove(fields, bytes, metadata::PEER_ID);
    let Some(routed) = context.routed else { return };
    if routed.host.attempt_count_to_client {
        let _left_out = edit.set(
            fields,
            bytes,
            b"x-envoy-attempt-count",
            decimal(context.attempts.into(), &mut digits),
        );
    }
    let entry = context.entry.map(|entry| &entry.response_headers);
    for ops in order(
        routed,
        entry,
        &routed.route.response_headers,
        &routed.host.response_headers,
        |config| &config.response_headers,
    ) {
        apply(edit, fields, bytes, ops, &context.values, text);
    }
}

fn decimal(number: u128, digits: &mut [u8; 20]) -> &[u8] {
    let mut left = number;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        count += 1;
        if left == 0 {
            break;
        }
    }
    let from = digits.len() - count;
    digits.get(from..).unwrap_or_default()
}

/// What `x-forwarded-client-cert` says of this client: Istio's order of elements.
pub fn client_cert_text(own: &str, peer: &crate::tls::Peer) -> Arc<str> {
    Arc::from(format!("By={own};Hash={};Subject=\"\";URI={}", peer.hash, peer.spiffe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_version_4_uuids() {
        let id = RequestId::new(u64::MAX, u64::MAX);
        assert_eq!(
            std::str::from_utf8(id.as_bytes()).unwrap(),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        let id = RequestId::new(0, 0);
        assert_eq!(
            std::str::from_utf8(id.as_bytes()).unwrap(),
            "00000000-0000-4000-8000-000000000000"
        );
    }

    #[test]
    fn decimals() {
        assert_eq!(decimal(0, &mut [0; 20]), b"0");
        assert_eq!(decimal(18_446_744_073, &mut [0; 20]), b"18446744073");
    }
}

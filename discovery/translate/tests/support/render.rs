//! Messages as text that people can read: nested, without what is at its default, and with what is packed unpacked.

use std::fmt::{Debug, Write as _};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::extensions as ext;
use mizzen_translate::{Resource, TypeUrl};
use prost::{Message, Name};

pub fn resource(resource: &Resource) -> String {
    fn decoded<T: Message + Default + Debug>(body: &[u8]) -> String {
        format!("{:?}", T::decode(body).unwrap())
    }
    let body = &resource.body[..];
    let debug = match resource.type_url {
        TypeUrl::Cluster => decoded::<Cluster>(body),
        TypeUrl::Endpoints => decoded::<ClusterLoadAssignment>(body),
        TypeUrl::Listener => decoded::<Listener>(body),
        TypeUrl::Route => decoded::<RouteConfiguration>(body),
        TypeUrl::VirtualHost => decoded::<VirtualHost>(body),
    };
    yaml(&debug)
}

fn unpack(url: &str, value: &[u8]) -> Option<String> {
    fn as_type<T: Message + Name + Default + Debug>(url: &str, value: &[u8]) -> Option<String> {
        (T::type_url() == url).then(|| format!("{:?}", T::decode(value).unwrap()))
    }
    use ext::filters::{http, listener, network};
    type Read = fn(&str, &[u8]) -> Option<String>;
    let readers: &[Read] = &[
        as_type::<network::http_connection_manager::v3::HttpConnectionManager>,
        as_type::<network::tcp_proxy::v3::TcpProxy>,
        as_type::<http::fault::v3::HttpFault>,
        as_type::<http::cors::v3::Cors>,
        as_type::<http::cors::v3::CorsPolicy>,
        as_type::<http::router::v3::Router>,
        as_type::<listener::original_dst::v3::OriginalDst>,
        as_type::<listener::tls_inspector::v3::TlsInspector>,
        as_type::<listener::http_inspector::v3::HttpInspector>,
        as_type::<ext::transport_sockets::tls::v3::UpstreamTlsContext>,
        as_type::<ext::transport_sockets::tls::v3::DownstreamTlsContext>,
        as_type::<ext::transport_sockets::raw_buffer::v3::RawBuffer>,
        as_type::<ext::upstreams::http::v3::HttpProtocolOptions>,
        as_type::<ext::access_loggers::file::v3::FileAccessLog>,
        as_type::<ext::access_loggers::grpc::v3::HttpGrpcAccessLogConfig>,
        as_type::<ext::access_loggers::grpc::v3::TcpGrpcAccessLogConfig>,
        as_type::<http::header_mutation::v3::HeaderMutation>,
        as_type::<http::header_to_metadata::v3::Config>,
        as_type::<ext::retry::host::previous_hosts::v3::PreviousHostsPredicate>,
    ];
    readers.iter().find_map(|read| read(url, value))
}

/// What `{:?}` writes, read back.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Word(String),
    List(Vec<Node>),
    Fields(Option<String>, Vec<(String, Node)>),
    Wrapped(String, Vec<Node>),
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn space(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn eat(&mut self, text: &str) -> bool {
        self.space();
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> String {
        self.space();
        if self.0.starts_with('"') {
            let mut escaped = false;
            let end = self.0.char_indices().skip(1).find(|(_, c)| {
                let end = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                end
            });
            let (word, rest) = self.0.split_at(end.unwrap().0 + 1);
            self.0 = rest;
            return word.to_owned();
        }
        let end = self.0.find(|c: char| " ,:(){}[]".contains(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word.to_owned()
    }

    fn until(&mut self, end: &str, mut read: impl FnMut(&mut Self)) {
        while !self.eat(end) {
            read(self);
            self.eat(",");
        }
    }

    fn fields(&mut self) -> Vec<(String, Node)> {
        let mut fields = Vec::new();
        self.until("}", |reader| {
            let key = reader.word();
            assert!(
                reader.eat(":"),
                "no value for {key}: {}",
                &reader.0[..reader.0.len().min(60)]
            );
            fields.push((key, reader.node()));
        });
        fields
    }

    fn node(&mut self) -> Node {
        if self.eat("[") {
            let mut list = Vec::new();
            self.until("]", |reader| list.push(reader.node()));
            return Node::List(list);
        }
        if self.eat("{") {
            return Node::Fields(None, self.fields());
        }
        let word = self.word();
        if self.eat("(") {
            let mut inner = Vec::new();
            self.until(")", |reader| inner.push(reader.node()));
            Node::Wrapped(word, inner)
        } else if self.eat("{") {
            Node::Fields(Some(word), self.fields())
        } else {
            Node::Word(word)
        }
    }
}

fn tidy(node: Node) -> Node {
    match node {
        Node::Wrapped(name, mut inner) if name == "Some" => tidy(inner.pop().unwrap()),
        Node::Wrapped(name, inner) => Node::Fields(
            None,
            vec![(
                name,
                match inner.into_iter().next() {
                    Some(only) => tidy(only),
                    None => Node::Word(String::new()),
                },
            )],
        ),
        Node::Fields(Some(name), fields) if name == "Any" => {
            let mut url = String::new();
            let mut bytes = Vec::new();
            for (_, value) in fields {
                match value {
                    Node::Word(word) => url = word.trim_matches('"').to_owned(),
                    Node::List(list) => {
                        bytes = list
                            .iter()
                            .map(|byte| match byte {
                                Node::Word(word) => word.parse::<u8>().unwrap(),
                                _ => panic!("not a byte"),
                            })
                            .collect();
                    }
                    _ => {}
                }
            }
            let inner = unpack(&url, &bytes).unwrap_or_else(|| panic!("cannot unpack {url}"));
            let short = url.rsplit('.').next().unwrap().to_owned();
            Node::Fields(None, vec![(format!("({short})"), tidy(Reader(&inner).node()))])
        }
        // google.protobuf.Value, ListValue, Struct, Duration and wrappers as what they stand for
        Node::Fields(Some(name), mut fields)
            if [
                "Value",
                "Struct",
                "ListValue",
                "BoolValue",
                "UInt32Value",
                "UInt64Value",
            ]
            .contains(&name.as_str()) =>
        {
            match tidy(fields.pop().unwrap().1) {
                Node::Fields(None, mut one) if name == "Value" => one.pop().unwrap().1,
                other => other,
            }
        }
        Node::Fields(Some(name), fields) if name == "Duration" => {
            let part = |index: usize| match &fields[index].1 {
                Node::Word(word) => word.parse::<f64>().unwrap(),
                _ => 0.0,
            };
            Node::Word(format!("{}s", part(0) + part(1) / 1e9))
        }
        Node::Fields(name, fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(key, value)| (key, tidy(value))).collect();
            fields.retain(|(key, value)| !default(key, value));
            if name.is_none() {
                fields.sort_by(|a, b| a.0.cmp(&b.0));
            }
            Node::Fields(None, fields)
        }
        Node::List(list) => Node::List(list.into_iter().map(tidy).collect()),
        word => word,
    }
}

/// What says nothing: a message's default, or an enum's.
fn default(key: &str, node: &Node) -> bool {
    const MAPS: [&str; 4] = [
        "typed_per_filter_config",
        "typed_filter_metadata",
        "named_endpoints",
        "typed_extension_protocol_options",
    ];
    const ENUMS: [(&str, &str); 12] = [
        ("cluster_not_found_response_code", "ServiceUnavailable"),
        ("internal_redirect_action", "PassThroughInternalRedirect"),
        ("priority", "Default"),
        ("protocol", "Tcp"),
        ("source_type", "Any"),
        ("drain_type", "Default"),
        ("dns_lookup_family", "Auto"),
        ("protocol_selection", "UseConfiguredProtocol"),
        ("proxy_protocol_tlv_merge_policy", "AddIfAbsent"),
        ("upstream_connect_mode", "Immediate"),
        ("path_with_escaped_slashes_action", "ImplementationSpecificDefault"),
        ("trust_chain_verification", "VerifyTrustChain"),
    ];
    match node {
        Node::Word(word) => {
            ["None", "\"\"", "false", "0"].contains(&word.as_str()) || ENUMS.contains(&(key, word.as_str()))
        }
        Node::List(list) => list.is_empty(),
        Node::Fields(_, fields) => fields.is_empty() && MAPS.contains(&key),
        Node::Wrapped(..) => false,
    }
}

fn yaml(debug: &str) -> String {
    let mut out = String::new();
    write(&tidy(Reader(debug).node()), 0, false, &mut out);
    out
}

fn plain(word: &str) -> String {
    let text = word.trim_matches('"');
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_./|*".contains(c);
    let bare = !text.is_empty() && text.chars().all(simple) && !text.starts_with('*') && !text.starts_with('|');
    if word.starts_with('"') && bare && text.parse::<f64>().is_err() {
        text.to_owned()
    } else {
        word.to_owned()
    }
}

/// `open`: the text stands right after a dash.
fn write(node: &Node, indent: usize, open: bool, out: &mut String) {
    let pad = " ".repeat(indent);
    match node {
        Node::Word(word) => {
            let _ = writeln!(out, "{}", plain(word));
        }
        Node::Fields(_, fields) if fields.is_empty() => out.push_str("{}\n"),
        Node::Fields(_, fields) => {
            for (index, (key, value)) in fields.iter().enumerate() {
                let pad = if open && index == 0 { "" } else { &pad };
                match value {
                    Node::Word(_) => {
                        let _ = write!(out, "{pad}{}: ", plain(key));
                    }
                    Node::Fields(_, inner) if inner.is_empty() => {
                        let _ = write!(out, "{pad}{}: ", plain(key));
                    }
                    _ => {
                        let _ = writeln!(out, "{pad}{}:", plain(key));
                    }
                }
                let deeper = if matches!(value, Node::List(_)) {
                    indent
                } else {
                    indent + 2
                };
                write(value, deeper, false, out);
            }
        }
        Node::List(list) => {
            for item in list {
                let _ = write!(out, "{pad}- ");
                write(item, indent + 2, true, out);
            }
        }
        Node::Wrapped(..) => unreachable!("tidied away"),
    }
}

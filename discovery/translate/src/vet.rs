//! Route configurations without what a proxy refuses.
//!
//! A proxy takes a route configuration as a whole or not at all, and it holds the routes of many virtual services. Here it is
//! taken apart into [`Part`]s, one for each virtual service in each virtual host, so that whoever hears the proxy's refusal
//! can tell whose routes may be at fault ([`suspects`]) and have the rest sent without them ([`without`]).
//!
//! In and out: encoded messages. What is left is copied byte by byte, so that equal content stays equal.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use mizzen_model::{Kind, Namespace, ObjectKey, ObjectName};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// `RouteConfiguration.virtual_hosts`.
const HOSTS: u32 = 2;
/// `VirtualHost.routes`.
const ROUTES: u32 = 3;
/// `VirtualHost.name`.
const NAME: u32 = 1;

/// The routes of one virtual service in one virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// A hash of whose routes they are and of what they say.
    pub id: u64,
    /// The virtual service.
    pub object: ObjectKey,
    /// The name of the virtual host.
    pub host: String,
    /// The routes, encoded one by one.
    routes: Vec<Vec<u8>>,
    /// Where they stand: of the host among the hosts, and of each route among the host's.
    place: (usize, Vec<usize>),
}

/// The parts of a route configuration that virtual services made.
#[must_use]
pub fn parts(configuration: &[u8]) -> Vec<Part> {
    let mut found = Vec::new();
    let hosts = fields(configuration).filter(|field| field.tag == HOSTS);
    for (at, host) in hosts.enumerate() {
        found.extend(parts_of(host.value, at));
    }
    found
}

fn parts_of(host: &[u8], at: usize) -> Vec<Part> {
    let name = fields(host).find(|field| field.tag == NAME);
    let name = name.map_or_else(String::new, |field| String::from_utf8_lossy(field.value).into_owned());
    let mut parts: Vec<Part> = Vec::new();
    let routes = fields(host).filter(|field| field.tag == ROUTES);
    for (index, route) in routes.enumerate() {
        let Some(object) = owner(route.value) else { continue };
        let known = parts.iter_mut().find(|part| part.object == object);
        match known {
            Some(part) => {
                part.routes.push(route.value.to_vec());
                part.place.1.push(index);
            }
            None => parts.push(Part {
                id: 0,
                object,
                host: name.clone(),
                routes: vec![route.value.to_vec()],
                place: (at, vec![index]),
            }),
        }
    }
    for part in &mut parts {
        let mut text = part.object.to_string().into_bytes();
        for route in &part.routes {
            text.extend(route.len().to_be_bytes());
            text.extend_from_slice(route);
        }
        part.id = xxhash_rust::xxh3::xxh3_64(&text);
    }
    parts
}

/// The parts that may be why a proxy refused the whole: of those that `vouched` does not know from what a proxy accepted,
/// the ones that its message points at, or all.
#[must_use]
pub fn suspects(configuration: &[u8], message: &str, vouched: impl Fn(u64) -> bool) -> Vec<Part> {
    let mut seen = BTreeSet::new();
    let mut unknown: Vec<Part> = parts(configuration)
        .into_iter()
        .filter(|part| !vouched(part.id))
        .collect();
    for narrowed in [pointed_at(&unknown, message), mentioned(&unknown, message)] {
        if narrowed.iter().any(|narrowed| *narrowed) {
            let mut narrowed = narrowed.into_iter();
            unknown.retain(|_| narrowed.next().unwrap_or_default());
            break;
        }
    }
    // The same routes may stand in several hosts.
    unknown.retain(|part| seen.insert(part.id));
    unknown
}

/// Envoy's message for a broken rule of a field names it by its place: `VirtualHosts[3]: … Routes[0]: …`.
fn pointed_at(parts: &[Part], message: &str) -> Vec<bool> {
    let place = |field: &str| {
        let (_, rest) = message.split_once(&format!("{field}["))?;
        rest.split_once(']')?.0.parse::<usize>().ok()
    };
    let (host, route) = (place("VirtualHosts"), place("Routes"));
    let is = |part: &Part| {
        host.is_some_and(|host| host == part.place.0) && route.is_none_or(|route| part.place.1.contains(&route))
    };
    parts.iter().map(is).collect()
}

/// Other messages repeat a part of what is wrong. It counts if one virtual service alone says that.
fn mentioned(parts: &[Part], message: &str) -> Vec<bool> {
    const TELLING: usize = 6; // shorter texts are in a message by chance
    let said = |part: &Part| -> BTreeSet<String> {
        let text = part
            .routes
            .iter()
            .filter_map(|route| route::Route::decode(route.as_slice()).ok())
            .map(|route| format!("{route:?}"))
            .collect::<String>();
        // What stands between quotation marks in there are the texts.
        let texts = text.split('"').skip(1).step_by(2);
        texts
            .filter(|text| text.len() >= TELLING)
            .map(|text| text.replace("\\\\", "\\"))
            .collect()
    };
    let all: Vec<BTreeSet<String>> = parts.iter().map(said).collect();
    let alone = |text: &String, own: &ObjectKey| {
        let mut others = parts.iter().zip(&all).filter(|(part, _)| part.object != *own);
        others.all(|(_, said)| !said.contains(text))
    };
    let is = |(part, said): (&Part, &BTreeSet<String>)| {
        said.iter()
            .any(|text| message.contains(text.as_str()) && alone(text, &part.object))
    };
    parts.iter().zip(&all).map(is).collect()
}

/// What a proxy last accepted of the same routes: those of that virtual service in that virtual host.
#[must_use]
pub fn counterpart(accepted: &[u8], part: &Part) -> Option<Part> {
    parts(accepted)
        .into_iter()
        .find(|known| known.host == part.host && known.object == part.object)
}

/// A route configuration in which other routes stand in for some parts: those that `instead` gives for an id, or, if it gives
/// an empty list, an answer 503 that says why, after everything else. Nothing if there is no such part.
#[must_use]
pub fn without(configuration: &[u8], instead: impl Fn(u64) -> Option<Option<Part>>) -> Option<Vec<u8>> {
    let mut changed = false;
    let mut out = Vec::with_capacity(configuration.len());
    let mut at = 0;
    for field in fields(configuration) {
        if field.tag != HOSTS {
            out.extend_from_slice(field.whole);
            continue;
        }
        let bad: Vec<(Part, Option<Part>)> = parts_of(field.value, at)
            .into_iter()
            .filter_map(|part| instead(part.id).map(|instead| (part, instead)))
            .collect();
        at += 1;
        if bad.is_empty() {
            out.extend_from_slice(field.whole);
        } else {
            changed = true;
            put(HOSTS, &host_without(field.value, &bad), &mut out);
        }
    }
    changed.then_some(out)
}

fn host_without(host: &[u8], bad: &[(Part, Option<Part>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(host.len());
    let mut index = 0;
    let mut catches_all = false;
    let mut keep = |route: &[u8], out: &mut Vec<u8>| {
        catches_all |= takes_everything(route);
        put(ROUTES, route, out);
    };
    for field in fields(host) {
        if field.tag != ROUTES {
            out.extend_from_slice(field.whole);
            continue;
        }
        match bad.iter().find(|(part, _)| part.place.1.contains(&index)) {
            None => keep(field.value, &mut out),
            Some((part, Some(good))) if part.place.1.first() == Some(&index) => {
                good.routes.iter().for_each(|route| keep(route, &mut out));
            }
            Some(_) => {}
        }
        index += 1;
    }
    if !catches_all && bad.iter().any(|(_, instead)| instead.is_none()) {
        put(ROUTES, &refusal().encode_to_vec(), &mut out);
    }
    out
}

fn takes_everything(route: &[u8]) -> bool {
    let everything = crate::route::everything();
    route::Route::decode(route).is_ok_and(|route| route.r#match == Some(everything))
}

fn refusal() -> route::Route {
    let body = "the proxy refused the routes of a VirtualService for this host: its status says why\n";
    let body = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(body.to_owned())),
        ..Default::default()
    };
    route::Route {
        name: "refused".to_owned(),
        r#match: Some(crate::route::everything()),
        action: Some(route::route::Action::DirectResponse(route::DirectResponseAction {
            status: 503,
            body: Some(body),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// The virtual service that a route's metadata names.
fn owner(route: &[u8]) -> Option<ObjectKey> {
    let route = route::Route::decode(route).ok()?;
    let about = route.metadata?;
    let value = about.filter_metadata.get("istio")?.fields.get("config")?;
    let Some(ValueKind::StringValue(path)) = &value.kind else {
        return None;
    };
    let mut parts = path
        .strip_prefix("/apis/networking.istio.io/v1/namespaces/")?
        .split('/');
    let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    (kind == "virtual-service").then_some(())?;
    Some(ObjectKey::new(
        Kind::VirtualService,
        Namespace::new(namespace).ok()?,
        ObjectName::new(name).ok()?,
    ))
}

/// A field on the wire: all its bytes, and its content if that has a length.
struct Field<'a> {
    tag: u32,
    whole: &'a [u8],
    value: &'a [u8],
}

/// The fields of a message; ends where it is no message.
fn fields(message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let start = rest;
        let mut ahead = rest;
        if ahead.is_empty() {
            return None;
        }
        let (tag, wire) = decode_key(&mut ahead).ok()?;
        let value = match wire {
            WireType::Varint => {
                decode_varint(&mut ahead).ok()?;
                &[][..]
            }
            WireType::SixtyFourBit => {
                ahead = ahead.get(8..)?;
                &[][..]
            }
            WireType::ThirtyTwoBit => {
                ahead = ahead.get(4..)?;
                &[][..]
            }
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut ahead).ok()?).ok()?;
                let (value, after) = ahead.split_at_checked(length)?;
                ahead = after;
                value
            }
            // Nobody writes groups any more.
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        rest = ahead;
        let whole = start.get(..start.len() - ahead.len())?;
        Some(Field { tag, whole, value })
    })
}

fn put(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests;

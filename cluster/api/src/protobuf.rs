//! Request bodies in protobuf: what kubectl and client-go send for built-in kinds.
//!
//! In: bytes that start with `k8s\0`. Out: the object as JSON. Never: a response; those are JSON, which every client accepts.
//!
//! The fields of all kinds are data (`recorded/messages`), so one decoder reads them all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::{Map, Number, Value};
use std::collections::HashMap;
use std::io::Read as _;
use std::sync::LazyLock;

#[cfg(test)]
mod tests;
mod wire;

use wire::{Payload, fields};

/// Why a body could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtobufError {
    /// The bytes are no `k8s\0` envelope or break off.
    #[error("provided data does not appear to be a protobuf message: {0}")]
    Malformed(&'static str),
    /// A kind of which no messages are known here: answer 415 Unsupported Media Type.
    #[error("the body of the request was in an unknown format: {api_version}, Kind={kind} is not read as protobuf")]
    UnknownKind {
        /// The group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Deeper than any kind, so that no body can exhaust the stack.
const DEEPEST: usize = 64;

/// The messages by name, such as `core/v1.Pod`.
static MESSAGES: LazyLock<HashMap<Box<str>, Box<[Field]>>> = LazyLock::new(|| {
    let mut text = String::new();
    let mut reader = GzDecoder::new(&include_bytes!("../recorded/messages.txt.gz")[..]);
    match reader.read_to_string(&mut text) {
        Ok(_) => messages(&text),
        Err(_) => HashMap::new(),
    }
});

/// One field of a message.
#[derive(Debug)]
struct Field {
    number: u32,
    name: Box<str>,
    kind: Kind,
    /// What the flags say: `p` pointer, `r` repeated, `m` map, `o` left out when empty, `i` inline, `l` the message is this list.
    flags: Box<str>,
}

#[derive(Debug)]
enum Kind {
    Text,
    Integer,
    Boolean,
    Double,
    Bytes,
    Time { micro: bool },
    Duration,
    Quantity,
    IntOrString,
    Raw,
    Message(Box<str>),
}

fn messages(text: &str) -> HashMap<Box<str>, Box<[Field]>> {
    let mut all = HashMap::new();
    let mut lines = text.lines().peekable();
    while let Some(name) = lines.next() {
        let mut own = Vec::new();
        while let Some(line) = lines.next_if(|line| line.contains(' ')) {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            let number = word().parse().unwrap_or_default();
            let (name, kind, flags) = (word().into(), kind(word()), word().into());
            own.push(Field {
                number,
                name,
                kind,
                flags,
            });
        }
        all.insert(name.into(), own.into_boxed_slice());
    }
    all
}

fn kind(word: &str) -> Kind {
    match word {
        "s" => Kind::Text,
        "i" => Kind::Integer,
        "b" => Kind::Boolean,
        "d" => Kind::Double,
        "y" => Kind::Bytes,
        "Time" => Kind::Time { micro: false },
        "MicroTime" => Kind::Time { micro: true },
        "Duration" => Kind::Duration,
        "Quantity" => Kind::Quantity,
        "IntOrString" => Kind::IntOrString,
        "Raw" => Kind::Raw,
        name => Kind::Message(name.into()),
    }
}

/// Whether JSON leaves a field of a message out when it is empty, as its Go type declares; `None` for what is not known here.
/// `definition` is a name of the published schemas, such as `io.k8s.api.core.v1.Pod`.
pub(crate) fn leaves_out_empty(definition: &str, field: &str) -> Option<bool> {
    let mut parts = definition.rsplit('.');
    let (kind, version, package) = (parts.next()?, parts.next()?, parts.next()?);
    let found = declared(&format!("{package}/{version}.{kind}"), field)?;
    Some(found.is('o') && !found.is('p'))
}

/// A field of a message or of one that it has inline.
fn declared(message: &str, field: &str) -> Option<&'static Field> {
    let fields = MESSAGES.get(message)?;
    fields.iter().find(|own| &*own.name == field).or_else(|| {
        fields.iter().filter(|own| own.is('i')).find_map(|own| match &own.kind {
            Kind::Message(inner) => declared(inner, field),
            _ => None,
        })
    })
}

impl Field {
    fn is(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }
}

/// Decodes an envelope into the object with its `apiVersion` and `kind`.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let Some(envelope) = body.strip_prefix(b"k8s\0") else {
        return Err(ProtobufError::Malformed("it does not begin with k8s\\x00"));
    };
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in fields(envelope)? {
        match field {
            (1, Payload::Bytes(meta)) => {
                for field in fields(meta)? {
                    match field {
                        (1, Payload::Bytes(text)) => api_version = utf8(text)?,
                        (2, Payload::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", &api_version));
    let package = group.split('.').next().unwrap_or_default();
    // Options such as DeleteOptions exist in every group, and are those of meta.
    let names = [format!("{package}/{version}.{kind}"), format!("meta/v1.{kind}")];
    let Some(name) = names.iter().find(|name| MESSAGES.contains_key(name.as_str())) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = match message(name, raw, 0)? {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Malformed("a text is not UTF-8"))
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    if depth > DEEPEST {
        return Err(ProtobufError::Malformed("it is nested too deeply"));
    }
    let known = MESSAGES.get(name).map(|fields| &**fields).unwrap_or_default();
    let mut object = Map::new();
    let mut list = Vec::new();
    for (number, payload) in fields(bytes)? {
        let Some(field) = known.iter().find(|field| field.number == number) else {
            continue;
        };
        if field.is('l') {
            list.push(value(&field.kind, payload, depth)?);
            continue;
        }
        if field.is('i') {
            if let Value::Object(inner) = value(&field.kind, payload, depth)? {
                object.extend(inner);
            }
            continue;
        }
        if field.is('m') {
            let (key, value) = entry(&field.kind, payload, depth)?;
            let map = object.entry(&*field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
            continue;
        }
        let value = value(&field.kind, payload, depth)?;
        if field.is('r') {
            let items = object.entry(&*field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = items {
                items.push(value);
            }
        } else if !is_left_out(field, &value) {
            object.insert(field.name.to_string(), value);
        }
    }
    let is_list = known.first().is_some_and(|field| field.is('l'));
    Ok(if is_list {
        Value::Array(list)
    } else {
        Value::Object(object)
    })
}

/// Protobuf writes zeros that JSON leaves out.
fn is_left_out(field: &Field, value: &Value) -> bool {
    let is_zero = match value {
        Value::Null => return true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    };
    is_zero && field.is('o') && !field.is('p') && !matches!(field.kind, Kind::Quantity | Kind::IntOrString)
}

/// An entry of a map: the key is field 1, the value field 2.
fn entry(kind: &Kind, payload: Payload<'_>, depth: usize) -> Result<(String, Value), ProtobufError> {
    let Payload::Bytes(bytes) = payload else {
        return Err(ProtobufError::Malformed("a map has an entry of another type"));
    };
    let (mut key, mut found) = (String::new(), None);
    for field in fields(bytes)? {
        match field {
            (1, Payload::Bytes(text)) => key = utf8(text)?,
            (2, payload) => found = Some(value(kind, payload, depth)?),
            _ => {}
        }
    }
    let empty = || value(kind, Payload::Bytes(&[]), depth);
    Ok((key, found.map_or_else(empty, Ok)?))
}

fn value(kind: &Kind, payload: Payload<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let value = match (kind, payload) {
        (Kind::Integer, Payload::Varint(number)) => Value::from(number.cast_signed()),
        (Kind::Boolean, Payload::Varint(number)) => Value::from(number != 0),
        (Kind::Double, Payload::Fixed64(bits)) => {
            Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
        }
        (Kind::Text, Payload::Bytes(text)) => utf8(text)?.into(),
        (Kind::Bytes, Payload::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Kind::Raw, Payload::Bytes(bytes)) => match text_field(bytes, 1)? {
            text if text.is_empty() => Value::Null,
            text => serde_json::from_str(&text).map_err(|_| ProtobufError::Malformed("raw JSON is none"))?,
        },
        (Kind::Quantity, Payload::Bytes(bytes)) => text_field(bytes, 1)?.into(),
        (Kind::Time { micro }, Payload::Bytes(bytes)) => time(bytes, *micro)?,
        (Kind::Duration, Payload::Bytes(bytes)) => {
            let nanos = varint_field(bytes, 1)?;
            Value::from(format!("{}s", nanos as f64 / 1e9))
        }
        (Kind::IntOrString, Payload::Bytes(bytes)) => match varint_field(bytes, 1)? {
            0 => Value::from(varint_field(bytes, 2)?),
            _ => text_field(bytes, 3)?.into(),
        },
        (Kind::Message(name), Payload::Bytes(bytes)) => message(name, bytes, depth + 1)?,
        _ => return Err(ProtobufError::Malformed("a field has another type")),
    };
    Ok(value)
}

fn text_field(bytes: &[u8], wanted: u32) -> Result<String, ProtobufError> {
    for field in fields(bytes)? {
        if let (number, Payload::Bytes(text)) = field
            && number == wanted
        {
            return utf8(text);
        }
    }
    Ok(String::new())
}

fn varint_field(bytes: &[u8], wanted: u32) -> Result<i64, ProtobufError> {
    for field in fields(bytes)? {
        if let (number, Payload::Varint(value)) = field
            && number == wanted
        {
            return Ok(value.cast_signed());
        }
    }
    Ok(0)
}

/// RFC 3339 in UTC; a time that is not set is null.
fn time(bytes: &[u8], micro: bool) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (seconds, nanos) = (varint_field(bytes, 1)?, varint_field(bytes, 2)?);
    let malformed = |_| ProtobufError::Malformed("a time is out of range");
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).map_err(malformed)?;
    let (date, clock) = (time.date(), time.time());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = clock.as_hms();
    let fraction = if micro {
        format!(".{:06}", nanos / 1000)
    } else {
        String::new()
    };
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z").into())
}

//! How the structs of this module are made: every field optional, embedded Kubernetes types without their long texts.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// Declares structs in which every field is optional and absent when not said.
macro_rules! section {
    ($( $(#[$meta:meta])* $name:ident { $( $(#[$field_meta:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name { $(
            $(#[$field_meta])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $field: Option<$ty>,
        )* }
    )* };
}

/// Declares enums of plain words.
macro_rules! words {
    ($( $(#[$meta:meta])* $name:ident { $( $(#[$variant_meta:meta])* $variant:ident ),* $(,)? } )*) => { $(
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        $(#[$meta])*
        pub enum $name { $( $(#[$variant_meta])* $variant, )* }
    )* };
}

pub(crate) use section;
pub(crate) use words;

/// The schema of a free-form object: kept as written, whatever is in it.
pub(crate) fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// The schema of an embedded Kubernetes type without its descriptions, which would fill most of the CRD (kubectl keeps the
/// whole CRD in an annotation of at most 256 KiB).
pub(crate) fn bare<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    if let Some(object) = schema.as_object_mut() {
        for value in object.values_mut() {
            strip(value);
        }
        object.remove("description");
    }
    schema
}

/// As [`bare`], for a list of it.
pub(crate) fn bare_list<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let items = bare::<T>(generator);
    json_schema!({ "type": "array", "items": items })
}

/// Removes every description below `value`. A property that is itself named `description` holds an object, not a text.
fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, value| key != "description" || !value.is_string());
            object.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

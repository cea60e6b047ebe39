//! The status that the control plane writes on networking and security objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// What the control plane says of an object: whether it was accepted, and what is wrong with it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ConfigStatus {
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConfigCondition>,
    /// Findings of validation and analysis, most severe first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation_messages: Vec<ValidationMessage>,
    /// The `metadata.generation` that this status is about.
    #[serde(default, deserialize_with = "generation", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::int_or_string")]
    pub observed_generation: Option<i64>,
}

/// One condition of an object.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigCondition {
    /// The condition's type, for instance `Reconciled`.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// When the condition was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// When the status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// One word in CamelCase that says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence for people that says why and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The `metadata.generation` that this condition is about.
    #[serde(default, deserialize_with = "generation", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::int_or_string")]
    pub observed_generation: Option<i64>,
}

/// One finding of analysis.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValidationMessage {
    /// Which finding it is.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ValidationMessageType>,
    /// How bad it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<ValidationLevel>,
    /// Where the finding is explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documentation_url: Option<String>,
}

/// Name and code of a finding.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValidationMessageType {
    /// A name in CamelCase, for instance `ReferencedResourceNotFound`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A short stable code, for instance `IST0101`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
}

/// How bad a finding is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ValidationLevel {
    /// Not said.
    Unknown,
    /// The object, or a part of it, does not work.
    Error,
    /// It works, but most likely not as meant.
    Warning,
    /// Good to know.
    Info,
}

/// Other writers of this status encode 64-bit integers as text, as protobuf's JSON mapping does.
fn generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    Ok(match Option::<Either>::deserialize(deserializer)? {
        None => None,
        Some(Either::Number(number)) => Some(number),
        Some(Either::Text(text)) => text.parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_written_as_text_is_read() {
        let status: ConfigStatus = serde_json::from_str(
            r#"{"observedGeneration":"7","conditions":[{"type":"Reconciled","observedGeneration":6}]}"#,
        )
        .unwrap();
        assert_eq!(status.observed_generation, Some(7));
        assert_eq!(status.conditions[0].observed_generation, Some(6));
    }
}

//! Profiles: named specs that a user's spec starts from.
//!
//! A later profile wins over an earlier one, the user's spec over all; a profile that names profiles wins over those. Maps
//! are merged key by key, lists and plain values are replaced.

use crate::Problem;
use serde_json::{Map, Value};

/// The built-in profiles, by name.
pub const PROFILES: [(&str, &str); 4] = [
    ("default", include_str!("profiles/default.yaml")),
    ("demo", include_str!("profiles/demo.yaml")),
    ("minimal", include_str!("profiles/minimal.yaml")),
    ("small", include_str!("profiles/small.yaml")),
];

/// The profile that is used when a spec names none.
const DEFAULT: &str = "default";

/// The user's spec with its profiles merged in; `profiles` in it names those that were used.
pub(crate) fn apply(user: &Value) -> Result<Value, Problem> {
    let mut names = named(user);
    if names.is_empty() {
        names.push(DEFAULT.to_owned());
    }
    let mut merged = Value::Object(Map::new());
    for name in &names {
        merge(&mut merged, resolve(name, &mut Vec::new(), &built_in)?);
    }
    merge(&mut merged, user.clone());
    if let Some(object) = merged.as_object_mut() {
        object.insert("profiles".to_owned(), names.into_iter().map(Value::String).collect());
    }
    Ok(merged)
}

/// A profile's spec with the profiles it names merged in.
fn resolve(
    name: &str,
    path: &mut Vec<String>,
    read: &dyn Fn(&str) -> Result<Value, Problem>,
) -> Result<Value, Problem> {
    let seen = path.iter().any(|n| n == name);
    path.push(name.to_owned());
    if seen {
        return Err(Problem::ProfileCycle(path.join(" -> ")));
    }
    let own = read(name)?;
    let mut merged = Value::Object(Map::new());
    for nested in named(&own) {
        merge(&mut merged, resolve(&nested, path, read)?);
    }
    merge(&mut merged, own);
    path.pop();
    Ok(merged)
}

fn built_in(name: &str) -> Result<Value, Problem> {
    let unknown = || Problem::UnknownProfile {
        name: name.to_owned(),
        known: PROFILES.map(|(name, _)| format!("`{name}`")).join(", "),
    };
    let (_, text) = PROFILES.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
    let mut object: Value = serde_saphyr::from_str(text).map_err(|error| Problem::Unreadable(error.to_string()))?;
    Ok(object.get_mut("spec").map(Value::take).unwrap_or_default())
}

fn named(spec: &Value) -> Vec<String> {
    let list = spec.get("profiles").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Writes `over` over `base`. `null` in `over` says nothing.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if !value.is_null() {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, Value::Object(over)) => {
            // Into nothing: once more by key, so that nulls inside are dropped too.
            *base = Value::Object(Map::new());
            merge(base, Value::Object(over));
        }
        (base, over) => *base = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // A2
    #[test]
    fn the_users_spec_wins_then_the_last_profile() {
        let mut merged = json!({"a": {"x": 1, "y": [1, 2]}, "b": 1});
        merge(
            &mut merged,
            json!({"a": {"y": [3], "z": null}, "c": {"d": null, "e": 1}}),
        );
        assert_eq!(merged, json!({"a": {"x": 1, "y": [3]}, "b": 1, "c": {"e": 1}}));
    }

    #[test]
    fn no_profile_means_default() {
        let applied = apply(&json!({})).unwrap();
        assert_eq!(applied["profiles"], json!(["default"]));
        assert_eq!(applied["gateways"]["ingress"]["enabled"], json!(true));
    }

    #[test]
    fn a_profile_wins_over_those_it_names() {
        let read = |name: &str| {
            Ok(match name {
                "outer" => json!({"profiles": ["first", "second"], "o": 1, "s": "outer"}),
                "first" => json!({"f": "first", "s": "first", "t": "first"}),
                _ => json!({"f": "second", "s": "second"}),
            })
        };
        let merged = resolve("outer", &mut Vec::new(), &read).unwrap();
        assert_eq!(merged["f"], "second");
        assert_eq!(merged["s"], "outer");
        assert_eq!(merged["t"], "first");
    }

    #[test]
    fn a_circle_of_profiles_is_refused() {
        let read = |name: &str| {
            Ok(match name {
                "a" => json!({"profiles": ["b"]}),
                _ => json!({"profiles": ["a"]}),
            })
        };
        let problem = resolve("a", &mut Vec::new(), &read).unwrap_err();
        assert_eq!(problem, Problem::ProfileCycle("a -> b -> a".to_owned()));
    }

    #[test]
    fn an_unknown_profile_is_refused_with_those_there_are() {
        let problem = apply(&json!({"profiles": ["large"]})).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "there is no profile `large`; use one of `default`, `demo`, `minimal`, `small`"
        );
    }
}

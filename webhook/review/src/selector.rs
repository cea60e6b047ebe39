//! Kubernetes label selectors, evaluated.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether a selector matches labels. An empty selector matches everything; an unknown operator matches nothing (such a
/// selector is refused where it is written).
pub(crate) fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let among = |value: &String| expression.values.iter().flatten().any(|candidate| candidate == value);
            match expression.operator.as_str() {
                "In" => value.is_some_and(among),
                "NotIn" => !value.is_some_and(among),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    #[test]
    fn operators_mean_what_kubernetes_means() {
        let labels: BTreeMap<_, _> = [("app".to_owned(), "cart".to_owned())].into();
        let holds = |key: &str, operator: &str, values: &[&str]| {
            let requirement = LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            };
            matches(
                &LabelSelector {
                    match_expressions: Some(vec![requirement]),
                    ..Default::default()
                },
                &labels,
            )
        };
        assert!(holds("app", "In", &["cart", "pay"]) && !holds("app", "In", &["pay"]) && !holds("x", "In", &["cart"]));
        assert!(!holds("app", "NotIn", &["cart"]) && holds("x", "NotIn", &["cart"]));
        assert!(holds("app", "Exists", &[]) && !holds("x", "Exists", &[]));
        assert!(!holds("app", "DoesNotExist", &[]) && holds("x", "DoesNotExist", &[]));
        assert!(!holds("app", "Gt", &["1"]));
        assert!(matches(&LabelSelector::default(), &labels));
        let other = LabelSelector {
            match_labels: Some([("app".into(), "pay".into())].into()),
            ..Default::default()
        };
        assert!(!matches(&other, &labels));
    }
}

//! `matchConditions`: CEL expressions over the request.

use crate::json;
use kube_cel::KubeCelExt as _;
use kube_cel::cel::parser::{Expression, Parser};
use kube_cel::cel::{Context, Value as CelValue};
use serde_json::Value;

/// An expression, ready to be decided; the error says what is wrong with it. Kubernetes has optional fields (`a.?b`) on.
pub(crate) fn compile(source: &str) -> Result<Expression, String> {
    let parser = Parser::default().enable_optional_syntax(true);
    parser.parse(source).map_err(|error| error.to_string())
}

/// Whether all conditions of a webhook hold; one that is false decides before one that fails.
pub(super) fn hold(hook: &Value, request: &Value) -> Result<bool, String> {
    let conditions = json::list(hook, "/matchConditions");
    if conditions.is_empty() {
        return Ok(true);
    }
    let mut context = Context::default().with_all();
    let null = Value::Null;
    let variables = [
        ("object", request.get("object").unwrap_or(&null)),
        ("oldObject", request.get("oldObject").unwrap_or(&null)),
        ("request", request),
    ];
    for (name, value) in variables {
        context.add_variable(name, value).map_err(|error| error.to_string())?;
    }
    let mut failure = None;
    for condition in conditions {
        let (name, expression) = (json::text(condition, "/name"), json::text(condition, "/expression"));
        let result =
            compile(expression).and_then(|compiled| context.resolve(&compiled).map_err(|error| error.to_string()));
        match result {
            Ok(CelValue::Bool(true)) => {}
            Ok(CelValue::Bool(false)) => return Ok(false),
            Ok(other) => failure = Some(format!("match condition {name:?} gives {other:?}, not a boolean")),
            Err(error) => failure = Some(format!("match condition {name:?}: {error}")),
        }
    }
    failure.map_or(Ok(true), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conditions(expressions: &[&str]) -> Value {
        let all: Vec<Value> = expressions
            .iter()
            .map(|one| json!({"name": "c", "expression": one}))
            .collect();
        json!({"matchConditions": all})
    }

    #[test]
    fn all_conditions_must_hold_and_a_false_one_decides() {
        let request = json!({"operation": "CREATE", "object": {"metadata": {"name": "x", "labels": {"a": "b"}}},
            "oldObject": null, "userInfo": {"username": "u"}});
        let check = |expressions: &[&str]| hold(&conditions(expressions), &request);
        assert_eq!(check(&[]), Ok(true));
        assert_eq!(
            check(&["object.metadata.name == 'x'", "request.userInfo.username == 'u'"]),
            Ok(true)
        );
        assert_eq!(
            check(&["object.nothing.at == 'all'", "request.operation == 'UPDATE'"]),
            Ok(false)
        );
        assert!(check(&["object.nothing.at == 'all'"]).is_err());
        assert!(check(&["'text'"]).is_err());
    }
}

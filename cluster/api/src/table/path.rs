//! JSONPath, as far as printer columns use it.

use serde_json::Value;

/// A parsed path.
#[derive(Debug)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    /// Negative counts from the end.
    Index(i64),
    /// `[*]` or `.*`.
    All,
    /// `[?(@.path == "value")]`.
    Where {
        path: Vec<Step>,
        equal: bool,
        value: Value,
    },
}

impl Path {
    /// `.spec.list[?(@.name=="x")].value`; `None` for what is not understood.
    pub(super) fn parse(text: &str) -> Option<Path> {
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .and_then(|inner| inner.strip_suffix('}'))
            .unwrap_or(text);
        steps(text.strip_prefix('$').unwrap_or(text)).map(Path)
    }

    /// The first value that the path leads to.
    pub(super) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        find(&self.0, value).first().copied()
    }
}

fn steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut all = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            let end = closing(rest)?;
            all.push(bracket(rest.get(1..end)?.trim())?);
            rest = rest.get(end + 1..)?;
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        rest = rest.get(end..)?;
        match name.as_str() {
            "" => {}
            "*" => all.push(Step::All),
            _ => all.push(Step::Field(name)),
        }
    }
    Some(all)
}

/// Where the bracket that a text begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            ('[', None) => depth += 1,
            (']', None) => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        let (left, right, equal) = match condition.split_once("==") {
            Some((left, right)) => (left, right, true),
            None => condition.split_once("!=").map(|(left, right)| (left, right, false))?,
        };
        let path = steps(left.trim().strip_prefix('@')?)?;
        let right = right.trim();
        let value = match unquote(right) {
            Some(text) => Value::String(text.to_owned()),
            None => serde_json::from_str(right).ok()?,
        };
        return Some(Step::Where { path, equal, value });
    }
    match unquote(inner) {
        Some(name) => Some(Step::Field(name.to_owned())),
        None => inner.parse().ok().map(Step::Index),
    }
}

fn unquote(text: &str) -> Option<&str> {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\''))
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let Some((step, rest)) = steps.split_first() else {
        return vec![value];
    };
    let next: Vec<&Value> = match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Index(index), Value::Array(items)) => {
            let at = if *index < 0 { items.len() as i64 + index } else { *index };
            usize::try_from(at)
                .ok()
                .and_then(|at| items.get(at))
                .into_iter()
                .collect()
        }
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (
            Step::Where {
                path,
                equal,
                value: wanted,
            },
            Value::Array(items),
        ) => items
            .iter()
            .filter(|item| {
                find(path, item)
                    .first()
                    .is_some_and(|found| (*found == wanted) == *equal)
            })
            .collect(),
        _ => Vec::new(),
    };
    next.into_iter().flat_map(|value| find(rest, value)).collect()
}

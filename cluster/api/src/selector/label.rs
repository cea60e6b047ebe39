//! Label selectors: `a=b,c in (d,e),!f`, and as an object.

use super::SelectorError;
use super::lexer::{Token, scan};
use crate::schema::crd::is_subdomain;
use serde_json::{Map, Value};
use std::fmt;

/// What labels must be like; the default matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Equals(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

impl LabelSelector {
    /// Parses `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser {
            tokens: scan(text),
            position: 0,
        };
        let requirements = parser.requirements().map_err(SelectorError)?;
        Ok(Self { requirements })
    }

    /// From a `metav1.LabelSelector`; empty matches everything (what `null` means is the caller's).
    pub fn from_object(object: &Value) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in object
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Rule::Equals(value)).map_err(SelectorError)?);
        }
        for expression in object
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
            let values: Vec<String> = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect();
            let rule = match expression.get("operator").and_then(Value::as_str).unwrap_or_default() {
                "In" => Rule::In(values),
                "NotIn" => Rule::NotIn(values),
                "Exists" => Rule::Exists,
                "DoesNotExist" => Rule::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            requirements.push(Requirement::new(key, rule).map_err(SelectorError)?);
        }
        Ok(Self { requirements })
    }

    /// Whether an object's labels match; no labels are an empty map.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels
                .and_then(|labels| labels.get(&requirement.key))
                .and_then(Value::as_str);
            match &requirement.rule {
                Rule::Equals(wanted) => value == Some(wanted),
                Rule::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
                Rule::NotIn(values) => value.is_none_or(|value| !values.iter().any(|v| v == value)),
                Rule::Exists => value.is_some(),
                Rule::DoesNotExist => value.is_none(),
                Rule::GreaterThan(limit) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *limit),
                Rule::LessThan(limit) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *limit),
            }
        })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl fmt::Display for LabelSelector {
    /// In the order of the keys: `a=b,c in (d,e),!f`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by_key(|requirement| &requirement.key);
        for (index, Requirement { key, rule }) in sorted.into_iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match rule {
                Rule::Equals(value) => write!(f, "{key}={value}"),
                Rule::In(values) => write!(f, "{key} in ({})", values.join(",")),
                Rule::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
                Rule::Exists => f.write_str(key),
                Rule::DoesNotExist => write!(f, "!{key}"),
                Rule::GreaterThan(limit) => write!(f, "{key}>{limit}"),
                Rule::LessThan(limit) => write!(f, "{key}<{limit}"),
            }?;
        }
        Ok(())
    }
}

impl Requirement {
    fn new(key: &str, rule: Rule) -> Result<Self, String> {
        let mut errors: Vec<String> = key_error(key)
            .map(|detail| format!("key: Invalid value: {key:?}: {detail}"))
            .into_iter()
            .collect();
        let values = match &rule {
            Rule::Equals(value) => Some(std::slice::from_ref(value)),
            Rule::In(values) | Rule::NotIn(values) => Some(values.as_slice()),
            _ => None,
        };
        if let Some(values) = values {
            if values.is_empty() {
                errors.push(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned(),
                );
            }
            for (index, value) in values.iter().enumerate() {
                if let Some(detail) = value_error(value) {
                    errors.push(format!("values[{index}][{key}]: Invalid value: {value:?}: {detail}"));
                }
            }
        }
        match errors.as_slice() {
            [] => Ok(Self {
                key: key.to_owned(),
                rule,
            }),
            [error] => Err(error.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }
}

/// The grammar of the text form, by recursive descent.
struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

impl Parser {
    /// The next token; `in` and `notin` are words wherever a value or a key may stand.
    fn peek(&self, is_operator: bool) -> (Token, &str) {
        let (token, text) = self
            .tokens
            .get(self.position)
            .map_or((Token::End, ""), |(t, text)| (*t, text.as_str()));
        match token {
            Token::In | Token::NotIn if !is_operator => (Token::Word, text),
            other => (other, text),
        }
    }

    fn next(&mut self, is_operator: bool) -> (Token, String) {
        let (token, text) = self.peek(is_operator);
        let text = text.to_owned();
        self.position += 1;
        (token, text)
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        loop {
            match self.peek(false) {
                (Token::Word | Token::Not, _) => {
                    let one = self
                        .requirement()
                        .map_err(|error| format!("unable to parse requirement: {error}"))?;
                    all.push(one);
                    match self.next(false) {
                        (Token::End, _) => return Ok(all),
                        (Token::Comma, _) => match self.peek(false) {
                            (Token::Word | Token::Not, _) => {}
                            (_, text) => return Err(format!("found '{text}', expected: identifier after ','")),
                        },
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(all),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next(false);
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next(false);
        }
        if token != Token::Word {
            return Err(format!("found '{key}', expected: identifier"));
        }
        if let Some(detail) = key_error(&key) {
            return Err(format!("<nil>: Invalid value: {key:?}: {detail}"));
        }
        if negated {
            return Requirement::new(&key, Rule::DoesNotExist);
        }
        if matches!(self.peek(false).0, Token::End | Token::Comma) {
            return Requirement::new(&key, Rule::Exists);
        }
        let rule = match self.next(true) {
            (Token::In, _) => Rule::In(self.values()?),
            (Token::NotIn, _) => Rule::NotIn(self.values()?),
            (Token::Equals | Token::DoubleEquals, _) => Rule::Equals(self.exact_value()?),
            (Token::NotEquals, _) => Rule::NotIn(vec![self.exact_value()?]),
            (Token::Greater, _) => Rule::GreaterThan(number(&self.exact_value()?)?),
            (Token::Less, _) => Rule::LessThan(number(&self.exact_value()?)?),
            (_, text) => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        Requirement::new(&key, rule)
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next(false) {
            (Token::Open, _) => {}
            (_, text) => return Err(format!("found '{text}' expected: '('")),
        }
        let mut values: Vec<String> = Vec::new();
        match self.peek(false) {
            (Token::Close, _) => {
                self.position += 1;
                return Ok(vec![String::new()]);
            }
            (Token::Word | Token::Comma, _) => {}
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
        // An empty place between commas or parentheses is the empty value.
        let mut pending = true;
        loop {
            match self.next(false) {
                (Token::Word, text) => {
                    values.push(text);
                    pending = false;
                    match self.peek(false) {
                        (Token::Comma | Token::Close, _) => {}
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if pending {
                        values.push(String::new());
                    }
                    pending = true;
                }
                (Token::Close, _) => {
                    if pending {
                        values.push(String::new());
                    }
                    values.sort();
                    values.dedup();
                    return Ok(values);
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(false).0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next(false) {
            (Token::Word, text) => Ok(text),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

fn number(text: &str) -> Result<i64, String> {
    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
    text.parse()
        .map_err(|_| format!("values[0]: Invalid value: {text:?}: {detail}"))
}

const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// What is wrong with a label key: `[prefix/]name`.
pub(crate) fn key_error(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((prefix, name)) if !name.contains('/') => (Some(prefix), name),
        Some(_) => {
            return Some(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
                    .to_owned(),
            );
        }
    };
    let mut errors = Vec::new();
    match prefix {
        Some("") => errors.push("prefix part must be non-empty".to_owned()),
        Some(prefix) if !is_subdomain(prefix) => errors.push(format!("prefix part {}", crate::schema::crd::SUBDOMAIN)),
        _ => {}
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 characters".to_owned());
    }
    if !is_word(name) {
        errors.push(NAME_PART.to_owned());
    }
    (!errors.is_empty()).then(|| errors.join("; "))
}

/// What is wrong with a label value.
pub(crate) fn value_error(value: &str) -> Option<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push("must be no more than 63 characters");
    }
    if !value.is_empty() && !is_word(value) {
        errors.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and \
             end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        );
    }
    (!errors.is_empty()).then(|| errors.join("; "))
}

fn is_word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next())
        && edge(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

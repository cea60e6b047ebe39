//! Reading a raw object field by field: remembers where it is, collects everything that is wrong, and never stops early.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mizzen_crds::DurationText;
use mizzen_model::{ExportTo, Host, Labels, NameError, Namespace, Pattern, Timestamp};

use crate::diagnostic::Diagnostic;
use crate::error::{Caution, Invalid, Reason};
use crate::parse::regex;

/// More findings than this say nothing new.
const MAX_FINDINGS: usize = 100;

/// Where the reading is, and what was found so far.
pub(crate) struct Reader<'a> {
    /// The object's own namespace: short names are resolved in it.
    pub(crate) namespace: &'a Namespace,
    /// The suffix of service names.
    pub(crate) cluster_domain: &'a str,
    path: String,
    pub(crate) errors: Vec<Invalid>,
    pub(crate) warnings: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(namespace: &'a Namespace, cluster_domain: &'a str) -> Self {
        Self {
            namespace,
            cluster_domain,
            path: String::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Reads something one step further in.
    pub(crate) fn inside<T>(&mut self, step: impl Display, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        let step = step.to_string();
        if !self.path.is_empty() && !step.is_empty() && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(&step);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    /// Reads each entry of a list, and keeps those that can be read.
    pub(crate) fn each<T, U>(
        &mut self,
        field: &str,
        items: &[T],
        mut read: impl FnMut(&mut Self, &T) -> Option<U>,
    ) -> Vec<U> {
        items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| self.inside(format_args!("{field}[{index}]"), |r| read(r, item)))
            .collect()
    }

    /// Says that the field here is wrong.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        if self.errors.len() < MAX_FINDINGS {
            self.errors.push(Invalid {
                field: self.path.clone(),
                reason,
            });
        }
    }

    /// Says that a field of what is read here is wrong.
    pub(crate) fn refuse_at(&mut self, field: &str, reason: Reason) {
        self.inside(field, |r| r.refuse(reason));
    }

    /// Says that a field of what is read here deserves a second look.
    pub(crate) fn caution(&mut self, field: &str, caution: &Caution) {
        self.inside(field, |r| {
            if r.warnings.len() < MAX_FINDINGS {
                r.warnings
                    .push(Diagnostic::warning(caution.code(), r.path.clone(), caution.to_string()));
            }
        });
    }

    pub(crate) fn not_acted_on(&mut self, field: &str, present: bool) {
        if present {
            self.caution(field, &Caution::NotActedOn);
        }
    }

    /// The value of a fallible reading, or a refusal of the field.
    pub(crate) fn take<T, E: Into<Reason>>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse_at(field, error.into());
                None
            }
        }
    }

    /// A duration of at least 1ms.
    pub(crate) fn duration(&mut self, field: &str, text: Option<&DurationText>) -> Option<Duration> {
        let text = text?.as_str();
        let duration = self.duration_or_zero(field, Some(text))?;
        if duration < Duration::from_millis(1) {
            self.refuse_at(field, Reason::TooShort { text: text.to_owned() });
            return None;
        }
        Some(duration)
    }

    /// A duration that may be zero.
    pub(crate) fn duration_or_zero(&mut self, field: &str, text: Option<&str>) -> Option<Duration> {
        let text = text?;
        let parsed = parse_duration(text).ok_or_else(|| Reason::Duration { text: text.to_owned() });
        self.take(field, parsed)
    }

    /// A port that exists.
    pub(crate) fn port(&mut self, field: &str, number: Option<u32>) -> Option<u16> {
        let number = number?;
        match u16::try_from(number) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                self.refuse_at(
                    field,
                    Reason::Port {
                        number: number.to_string(),
                    },
                );
                None
            }
        }
    }

    /// A number that is not negative.
    pub(crate) fn count(&mut self, field: &str, number: Option<i32>) -> Option<u32> {
        let number = number?;
        let count = u32::try_from(number).map_err(|_| Reason::Range {
            number: number.to_string(),
            range: "0 or more",
        });
        self.take(field, count)
    }

    /// A whole percentage.
    pub(crate) fn percentage(&mut self, field: &str, number: Option<i32>) -> Option<u32> {
        let count = self.count(field, number)?;
        if count > 100 {
            self.refuse_at(
                field,
                Reason::Range {
                    number: count.to_string(),
                    range: "0 to 100",
                },
            );
            return None;
        }
        Some(count)
    }

    /// A host; a name without dots is a service of the object's namespace.
    pub(crate) fn host(&mut self, field: &str, text: &str) -> Option<Host> {
        self.take(field, Host::resolve(text, self.namespace, self.cluster_domain))
    }

    /// A namespace.
    pub(crate) fn namespace_named(&mut self, field: &str, text: &str) -> Option<Namespace> {
        let namespace = Namespace::new(text).map_err(|why| Reason::Namespace {
            text: text.to_owned(),
            why,
        });
        self.take(field, namespace)
    }

    /// A text that goes into a header, path or authority, and must not end it: no control characters.
    pub(crate) fn printable(&mut self, field: &str, text: &str) {
        if let Some(character) = text.chars().find(|c| c.is_control()) {
            self.refuse_at(field, Reason::ControlCharacter { character });
        }
    }

    /// The same for a text that may be missing; an empty one counts as missing.
    pub(crate) fn printable_text(&mut self, field: &str, given: Option<&String>) -> Option<Arc<str>> {
        let found = text(given)?;
        self.printable(field, &found);
        Some(found)
    }

    /// A regular expression that compiles and that means the same to both data planes. Envoy refuses an empty one.
    pub(crate) fn pattern(&mut self, field: &str, text: &str) -> Option<Pattern> {
        if text.is_empty() {
            let remedy = "write the regular expression, such as .*, or leave the condition out";
            self.refuse_at(field, Reason::Missing { remedy });
            return None;
        }
        if let Err(why) = regex::read(text) {
            self.refuse_at(field, Reason::Regex { why });
            return None;
        }
        let pattern = Pattern::new(text).map_err(|error| {
            // the library draws a picture over several lines; its last line says it
            let why = error.to_string();
            let why = why
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .trim()
                .to_owned();
            Reason::Regex { why }
        });
        self.take(field, pattern)
    }

    /// Addresses in CIDR form, or single ones.
    pub(crate) fn subnets(&mut self, field: &str, texts: &[String]) -> Vec<IpNet> {
        self.each(field, texts, |r, text| {
            let net = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            r.take("", net.map_err(|_| Reason::Subnet { text: text.clone() }))
        })
    }

    /// Labels.
    pub(crate) fn labels<'l>(
        &mut self,
        field: &str,
        labels: impl IntoIterator<Item = (&'l String, &'l String)>,
    ) -> Labels {
        let mut checked = Vec::new();
        for (key, value) in labels {
            for (label, rule) in [(key, label_key(key)), (value, label_value(value))] {
                if let Err(why) = rule {
                    self.refuse_at(
                        field,
                        Reason::Label {
                            label: label.clone(),
                            why,
                        },
                    );
                }
            }
            checked.push((key.as_str(), value.as_str()));
        }
        checked.into_iter().collect()
    }

    /// Who sees the object.
    pub(crate) fn export_to(&mut self, field: &str, names: &[String]) -> ExportTo {
        export_to(names.iter().map(String::as_str), self.namespace, |index, text, why| {
            let reason = Reason::Namespace {
                text: text.to_owned(),
                why,
            };
            self.refuse_at(&format!("{field}[{index}]"), reason);
        })
    }
}

/// Reads `exportTo`; whatever is no namespace is told to `wrong` and seen as nobody.
pub(crate) fn export_to<'t>(
    names: impl IntoIterator<Item = &'t str>,
    own: &Namespace,
    mut wrong: impl FnMut(usize, &str, mizzen_identity::NameError),
) -> ExportTo {
    let mut seen_by = std::collections::BTreeSet::new();
    let mut said = false;
    for (index, text) in names.into_iter().enumerate() {
        said = true;
        match text {
            "*" => return ExportTo::All,
            "." => {
                seen_by.insert(own.clone());
            }
            "~" => {}
            name => match Namespace::new(name) {
                Ok(namespace) => {
                    seen_by.insert(namespace);
                }
                Err(why) => wrong(index, text, why),
            },
        }
    }
    if said {
        ExportTo::Namespaces(seen_by)
    } else {
        ExportTo::All
    }
}

/// Text as the model shares it; none if it is empty.
pub(crate) fn text(text: Option<&String>) -> Option<Arc<str>> {
    text.filter(|text| !text.is_empty())
        .map(|text| Arc::from(text.as_str()))
}

/// When an object was created.
pub(crate) fn created(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Timestamp {
    Timestamp(
        metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
    )
}

/// A duration as Go writes it (`1h30m`, `1.5s`, `300ms`, `10us`); nothing else, and no sign.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let mut nanos: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: u128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 12 || fraction.len() > 12 {
            return None;
        }
        if !whole.is_empty() {
            nanos += whole.parse::<u128>().ok()? * unit;
        }
        if !fraction.is_empty() {
            let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
            nanos += fraction.parse::<u128>().ok()? * unit / scale;
        }
        rest = after;
    }
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

fn label_value(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Ok(());
    }
    if text.len() > 63 {
        return Err("longer than 63 characters");
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !ends(text.chars().next()) || !ends(text.chars().last()) {
        return Err("must begin and end with a letter or digit");
    }
    if text
        .chars()
        .any(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
    {
        return Err("only letters, digits, '-', '_' and '.' are allowed");
    }
    Ok(())
}

fn label_key(text: &str) -> Result<(), &'static str> {
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            let fine = |label: &str| !label.is_empty() && label_value(label).is_ok() && !label.contains('_');
            if prefix.len() > 253 || !prefix.split('.').all(fine) {
                return Err("the part before '/' must be a DNS name");
            }
            name
        }
        None => text,
    };
    if name.is_empty() {
        Err("the name is empty")
    } else {
        label_value(name)
    }
}

impl From<std::convert::Infallible> for Reason {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// The name of the object that is refused for having a bad one.
pub(crate) fn bad_name(object: &str, error: NameError) -> crate::error::Rejection {
    crate::error::Rejection {
        object: object.to_owned(),
        errors: vec![Invalid {
            field: "metadata.name".to_owned(),
            reason: Reason::Name(error),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        let good = [
            ("2s", 2_000),
            ("1.5s", 1_500),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("0s", 0),
            ("0", 0),
            (".5s", 500),
            ("1000us", 1),
        ];
        for (text, millis) in good {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "2",
            "s",
            "-1s",
            "1d",
            "1 s",
            "1s ",
            "1.s.",
            ".",
            "1e3s",
            "99999999999999h",
            "1.2.3s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn labels_follow_kubernetes_rules() {
        for key in ["app", "app.kubernetes.io/name", "a_b", "v1"] {
            assert_eq!(label_key(key), Ok(()), "{key}");
        }
        for key in ["", "/a", "a/", "-a", "a b", "a/b/c", "über"] {
            assert!(label_key(key).is_err(), "{key}");
        }
        assert_eq!(label_value(""), Ok(()));
        assert!(label_value("v1*").is_err());
        assert!(label_value(&"a".repeat(64)).is_err());
    }
}

//! What a single annotation's value may look like.

use std::borrow::Cow;

use ipnet::IpNet;

/// An annotation whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation} has the value {value:?}: write {expected}")]
pub struct AnnotationError {
    /// Which.
    pub annotation: &'static str,
    /// What it says.
    pub value: String,
    /// What it may say.
    pub expected: Cow<'static, str>,
}

fn list(text: &str, check: impl Fn(&str) -> bool) -> bool {
    text.is_empty() || text.split(',').all(|entry| check(entry.trim()))
}

pub(super) fn ports(text: &str) -> bool {
    list(text, |entry| {
        entry.bytes().all(|b| b.is_ascii_digit()) && entry.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

pub(super) fn ports_or_all(text: &str) -> bool {
    text == "*" || ports(text)
}

pub(super) fn ranges(text: &str) -> bool {
    list(text, |entry| entry.parse::<IpNet>().is_ok())
}

pub(super) fn ranges_or_all(text: &str) -> bool {
    text == "*" || ranges(text)
}

pub(super) fn interfaces(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    // Linux: IFNAMSIZ is 16 with the final NUL.
    list(text, |entry| {
        (1..16).contains(&entry.len()) && entry.bytes().all(allowed)
    })
}

pub(super) fn log_level(text: &str) -> bool {
    matches!(
        text,
        "trace" | "debug" | "info" | "warning" | "warn" | "error" | "critical" | "off"
    )
}

pub(super) fn component_log_levels(text: &str) -> bool {
    let name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    list(text, |entry| {
        entry
            .split_once(':')
            .is_some_and(|(component, level)| name(component) && log_level(level))
    })
}

pub(super) fn host_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    (is_host && port.parse::<u16>().is_ok_and(|port| port != 0)).then(|| text.to_owned())
}

/// As Istio writes durations: `5s`, `1m30s`, `250ms`.
pub(super) fn duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let Some((number, tail)) = rest.split_at_checked(digits) else {
            return false;
        };
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let Some((unit, tail)) = tail.split_at_checked(letters) else {
            return false;
        };
        if number.parse::<f64>().is_err() || !matches!(unit, "h" | "m" | "s" | "ms") {
            return false;
        }
        rest = tail;
    }
    !text.is_empty()
}

/// A loose check: whether the image exists is the node's matter, that it is one word is ours.
pub(super) fn image(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic())
}

pub(super) fn env_name(text: &str) -> bool {
    text.bytes()
        .enumerate()
        .all(|(at, b)| b.is_ascii_alphabetic() || b == b'_' || (at > 0 && b.is_ascii_digit()))
        && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mizzen_desired::is_quantity;

    // B5
    #[test]
    fn lists_of_ports_and_ranges() {
        assert!(ports("") && ports("80") && ports("80, 443"));
        assert!(!ports("*") && !ports("0") && !ports("65536") && !ports("+80") && !ports("80,") && !ports("http"));
        assert!(ports_or_all("*"));
        assert!(ranges("10.0.0.0/8,fd00::/8") && ranges_or_all("*"));
        assert!(!ranges("10.0.0.1") && !ranges("10.0.0.0/33") && !ranges("*"));
    }

    // B5
    #[test]
    fn quantities_and_durations() {
        for good in ["100m", "1", "0.5", "64Mi", "1e3", "2G"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "-1", "1.2.3", "64MB", "one", "1 Gi", "1e"] {
            assert!(!is_quantity(bad), "{bad}");
        }
        assert!(duration("5s") && duration("1m30s") && duration("250ms") && duration("1.5s"));
        assert!(!duration("") && !duration("5") && !duration("s") && !duration("-5s"));
    }

    // B5
    #[test]
    fn levels_addresses_and_names() {
        assert!(
            component_log_levels("misc:error,http:debug")
                && !component_log_levels("misc")
                && !component_log_levels("a:b")
        );
        assert!(host_port("istiod.mesh.svc:15012").is_some() && host_port("[::1]:15012").is_some());
        assert!(host_port("istiod").is_none() && host_port(":15012").is_none() && host_port("http://a:1").is_none());
        assert!(env_name("A_1") && !env_name("1A") && !env_name("") && !env_name("A-B"));
    }
}

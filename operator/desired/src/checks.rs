//! Checks of single values: text in, the same text or what is wrong with it out.

use crate::Problem;
use std::net::IpAddr;

/// A DNS-1123 label, as namespaces and most names must be.
pub(crate) fn name(text: &str) -> Result<(), Problem> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ok = !text.is_empty()
        && text.len() <= 63
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if ok {
        Ok(())
    } else {
        Err(Problem::NotAName(text.to_owned()))
    }
}

/// A trust domain: the SPIFFE standard's characters.
pub(crate) fn trust_domain(text: &str) -> Result<(), Problem> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    if !text.is_empty() && text.len() <= 255 && text.chars().all(inner) {
        Ok(())
    } else {
        Err(Problem::NotATrustDomain(text.to_owned()))
    }
}

/// Where images come from: host and path, without scheme, tag or a slash at the end.
pub(crate) fn registry(text: &str) -> Result<(), Problem> {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let part = |part: &str| {
        ends(part.chars().next())
            && ends(part.chars().last())
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let lower = |text: &str| !text.chars().any(|c| c.is_ascii_uppercase());
    let (first, path) = text
        .split_once('/')
        .map_or((text, None), |(host, path)| (host, Some(path)));
    let (host, port) = first
        .split_once(':')
        .map_or((first, None), |(host, port)| (host, Some(port)));
    let ok = part(host)
        && port.is_none_or(|port| port_text(port).is_ok())
        && path.is_none_or(|path| path.split('/').all(|text| part(text) && lower(text)));
    if ok {
        Ok(())
    } else {
        Err(Problem::NotARegistry(text.to_owned()))
    }
}

/// A tag of an image, or a digest.
pub(crate) fn tag(text: &str) -> Result<(), Problem> {
    let ok = match text.strip_prefix("sha256:") {
        Some(digest) => digest.len() == 64 && digest.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')),
        None => {
            (1..=128).contains(&text.len())
                && !text.starts_with(['.', '-'])
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    if ok {
        Ok(())
    } else {
        Err(Problem::NotATag(text.to_owned()))
    }
}

/// An amount as Kubernetes writes it, not below zero.
pub(crate) fn quantity(text: &str) -> Result<(), Problem> {
    if is_quantity(text) {
        Ok(())
    } else {
        Err(Problem::NotAQuantity(text.to_owned()))
    }
}

/// Whether the text is an amount as Kubernetes writes it (a decimal number with a suffix or an exponent), not below zero:
/// `100m`, `1.5`, `64Mi`, `1e3`.
pub fn is_quantity(text: &str) -> bool {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at_checked(digits).is_some_and(|(number, suffix)| {
        let is_number = number.chars().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
        let is_suffix = matches!(
            suffix,
            "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei"
        );
        let is_exponent = suffix
            .strip_prefix(['e', 'E'])
            .is_some_and(|exponent| exponent.parse::<i16>().is_ok());
        is_number && (is_suffix || is_exponent)
    })
}

/// A port number; `least` is 0 where 0 means "off".
pub(crate) fn port(number: i64, least: i64) -> Result<u16, Problem> {
    u16::try_from(number)
        .ok()
        .filter(|_| number >= least)
        .ok_or(Problem::NotAPort(number, least))
}

/// A port written as text.
pub(crate) fn port_text(text: &str) -> Result<(), Problem> {
    match text.parse::<u16>() {
        Ok(number) if number > 0 => Ok(()),
        _ => Err(Problem::NotAPortText(text.to_owned())),
    }
}

/// An address range in CIDR notation, or `*`.
pub(crate) fn address_range(text: &str) -> Result<(), Problem> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let address: IpAddr = address.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(())
    });
    if text == "*" || parsed.is_some() {
        Ok(())
    } else {
        Err(Problem::NotAnAddressRange(text.to_owned()))
    }
}

/// A duration in Go's notation, in seconds: `300ms`, `1.5h`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<f64, Problem> {
    let bad = || Problem::NotADuration(text.to_owned());
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * seconds;
        rest = tail;
    }
    Ok(total)
}

/// A number within bounds.
pub(crate) fn range(value: i64, min: i64, max: i64) -> Result<(), Problem> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Problem::OutOfRange { value, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("1h30m"), Ok(5400.0));
        assert_eq!(duration("1.5s"), Ok(1.5));
        assert_eq!(duration("250ms"), Ok(0.25));
        for bad in ["", "10", "s", "1d", "-1s", "1 s", "1..5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn address_ranges_need_a_length_that_fits() {
        for good in ["*", "10.0.0.0/8", "fd00::/64", "0.0.0.0/0"] {
            assert_eq!(address_range(good), Ok(()), "{good}");
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/-1"] {
            assert!(address_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn registries_have_no_scheme_and_no_slash_at_an_end() {
        for good in ["localhost/mizzen", "registry.example.com:5000/a/b", "quay.io/x"] {
            assert_eq!(registry(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "https://example.com/x",
            "example.com/",
            "/x",
            "a b",
            "a/B",
            "a:x/b",
            "a:0",
            "a//b",
            "a/-b",
        ] {
            assert!(registry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_those_of_images() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for good in ["dev", "1.0.0", "_x", "A-b_c.d", &digest] {
            assert_eq!(tag(good), Ok(()), "{good}");
        }
        for bad in ["", "-x", ".x", "a b", "a:b", "a/b", "sha256:ab", &"a".repeat(129)] {
            assert!(tag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for good in ["0", "100m", "1.5", ".5", "64Mi", "1e3", "2E", "1E-2"] {
            assert_eq!(quantity(good), Ok(()), "{good}");
        }
        for bad in [
            "", "banana", "-1", "1 Gi", "1gi", "1MB", "1..5", ".", "Mi", "1e", "1e1.5",
        ] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
    }
}

//! Which bytes may stand where, as tables: one load per byte in the loops that read heads.

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const HOST: u8 = 8;

static TABLE: [u8; 256] = table();

const fn table() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let mut class = 0;
        if byte.is_ascii_alphanumeric() || is_one_of(byte, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        if byte == b'\t' || (byte >= 0x20 && byte != 0x7f) {
            class |= VALUE;
        }
        // A fragment never reaches a server (RFC 9112, 3.2); bytes over 0x7e must be percent-encoded.
        if byte.is_ascii_graphic() && byte != b'#' {
            class |= TARGET;
        }
        // reg-name and IP-literal of RFC 3986 without the comma, which some recipients read as a list.
        if byte.is_ascii_alphanumeric() || is_one_of(byte, b"-._~%!$&'()*+;=:[]") {
            class |= HOST;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time, index < 256")]
        {
            table[index] = class;
        }
        index += 1;
    }
    table
}

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated at compile time, index < len")]
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

#[inline]
fn class(byte: u8) -> u8 {
    #[expect(clippy::indexing_slicing, reason = "a byte cannot leave a table of 256")]
    TABLE[byte as usize]
}

/// A character of a token (RFC 9110, 5.6.2).
#[inline]
pub(crate) fn is_token(byte: u8) -> bool {
    class(byte) & TOKEN != 0
}

/// Whether every byte may stand in a field value or reason phrase (visible, space, tab, obs-text).
#[inline]
pub(crate) fn all_value(bytes: &[u8]) -> bool {
    all(bytes, VALUE, |word| below(word, 0x20) | equal(word, 0x7f))
}

/// Whether the bytes are a non-empty token.
#[inline]
pub(crate) fn all_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().fold(TOKEN, |seen, byte| seen & class(*byte)) != 0
}

/// Whether every byte may stand in a request target.
#[inline]
pub(crate) fn all_target(bytes: &[u8]) -> bool {
    all(bytes, TARGET, |word| {
        below(word, 0x21) | equal(word, 0x7f) | equal(word, b'#') | (word & HIGH)
    })
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// High bits where a byte is below the limit (at most 0x80). Bytes after such a one may be marked too.
#[inline]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH
}

/// High bits where a byte is this one. Bytes after such a one may be marked too.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

/// Whether every byte is of a class: eight at a time by `suspect`, which may be wrong in one direction only; the table decides
/// about those eight.
#[inline]
fn all(bytes: &[u8], wanted: u8, suspect: impl Fn(u64) -> u64) -> bool {
    let exact = |bytes: &[u8]| bytes.iter().all(|byte| class(*byte) & wanted != 0);
    let good = |chunk: &[u8; 8]| suspect(u64::from_le_bytes(*chunk)) == 0 || exact(chunk);
    match bytes.last_chunk::<8>() {
        // The last eight overlap those before, which costs less than a loop over the rest.
        Some(last) => bytes.as_chunks::<8>().0.iter().all(good) && good(last),
        None => exact(bytes),
    }
}

/// `uri-host [ ":" port ]`, possibly empty: no user information, no list, a port in range, brackets only around an address.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    if bytes.iter().fold(HOST, |seen, byte| seen & class(*byte)) == 0 {
        return false;
    }
    let (host, port) = match bytes.first() {
        Some(b'[') => match memchr::memchr(b']', bytes) {
            Some(end) => {
                let (host, rest) = bytes.split_at(end + 1);
                let inner = host.get(1..end).unwrap_or_default();
                let address = inner.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
                // Zone identifiers and IPvFuture are refused: no service is named so.
                if inner.is_empty() || !address || memchr::memchr2(b'[', b']', inner).is_some() {
                    return false;
                }
                match rest.split_first() {
                    None => (host, None),
                    Some((b':', port)) => (host, Some(port)),
                    Some(_) => return false,
                }
            }
            None => return false,
        },
        _ => match memchr::memchr(b':', bytes) {
            Some(colon) => (bytes.get(..colon).unwrap_or_default(), bytes.get(colon + 1..)),
            None => (bytes, None),
        },
    };
    if !host.starts_with(b"[") && memchr::memchr2(b'[', b']', host).is_some() {
        return false;
    }
    match port {
        None => true,
        Some(port) => {
            port.len() <= 5
                && port.iter().all(u8::is_ascii_digit)
                && port.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0')) <= 65535
                && (port.is_empty() || !host.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_at_a_time_is_as_exact_as_one_by_one() {
        for byte in 0..=255_u8 {
            for position in 0..19 {
                let mut text = *b"abcdefghijklmnopqrs";
                text[position] = byte;
                assert_eq!(all_value(&text), class(byte) & VALUE != 0, "{byte:#x} at {position}");
                assert_eq!(all_target(&text), class(byte) & TARGET != 0, "{byte:#x} at {position}");
            }
        }
        assert!(all_value(b"\t\t\t\t\t\t\t\t\t"));
    }
}

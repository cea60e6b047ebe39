//! Paths in normal form, so that what matches a route and what the upstream resolves are the same thing.
//!
//! In: a request target and [`Rules`]. Out: the same bytes, changed in place, and how many of them are left; normal form is
//! never longer. The query is not touched. Nothing is allocated.

/// What normal form means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Percent-encoded unreserved characters are decoded, `\` becomes `/`, and `.` and `..` segments are resolved
    /// (RFC 3986, 5.2.4 and 6.2.2), as by Envoy's `normalize_path`.
    pub dot_segments: bool,
    /// Adjacent slashes become one, after the above, as by Envoy's `merge_slashes`.
    pub merge_slashes: bool,
}

/// A path that has no normal form: it holds an encoded NUL, which Envoy refuses too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedNul;

/// Brings `target` into normal form in place; its first bytes, as many as returned, are the result.
///
/// `%2F`, `%5C` and every other encoded character that is not unreserved stay as they are (Envoy's `KEEP_UNCHANGED`), so does
/// a `%` without two hexadecimal digits. Unlike Envoy, nothing is encoded that came in the clear. What does not begin with
/// `/` (`*`, the authority of CONNECT) is left alone. On error nothing was changed.
pub fn normalize(target: &mut [u8], rules: Rules) -> Result<usize, EncodedNul> {
    let whole = target.len();
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if path.first() != Some(&b'/') {
        return Ok(whole);
    }
    let before = path.len();
    let mut length = before;
    if rules.dot_segments && suspicious(path)? {
        length = resolve(target.get_mut(..length).unwrap_or_default());
    }
    if rules.merge_slashes
        && target
            .get(..length)
            .unwrap_or_default()
            .windows(2)
            .any(|two| two == b"//")
    {
        length = merge(target.get_mut(..length).unwrap_or_default());
    }
    if length == before {
        return Ok(whole);
    }
    target.copy_within(before.., length);
    Ok(whole - (before - length))
}

/// Whether there may be something to resolve; most paths have nothing.
fn suspicious(path: &[u8]) -> Result<bool, EncodedNul> {
    let mut found = false;
    let mut last = 0;
    for (index, byte) in path.iter().enumerate() {
        match byte {
            b'%' if escape(path, index) == Some(0) => return Err(EncodedNul),
            b'%' | b'\\' => found = true,
            b'.' if last == b'/' => found = true,
            _ => {}
        }
        last = *byte;
    }
    Ok(found)
}

/// The character encoded by `%XX` at `index`.
fn escape(path: &[u8], index: usize) -> Option<u8> {
    let digit = |offset: usize| {
        let byte = path.get(index + offset)?;
        char::from(*byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    (path.get(index) == Some(&b'%')).then_some(())?;
    Some(digit(1)? << 4 | digit(2)?)
}

/// RFC 3986, 2.3.
fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Where a dot at `index`, written plainly or encoded, ends.
fn dot(path: &[u8], index: usize) -> Option<usize> {
    match path.get(index)? {
        b'.' => Some(index + 1),
        b'%' if escape(path, index) == Some(b'.') => Some(index + 3),
        _ => None,
    }
}

/// Where a segment that ends at `index` hands over to the next: behind its slash, or at the end of the path.
fn segment_end(path: &[u8], index: usize) -> Option<usize> {
    match path.get(index) {
        None => Some(index),
        Some(b'/' | b'\\') => Some(index + 1),
        Some(_) => None,
    }
}

/// Decodes and resolves in place. What is written never overtakes what is read.
fn resolve(path: &mut [u8]) -> usize {
    let (mut read, mut write) = (0, 0);
    // Where a `%` that begins no escape was written: decoding behind it must not make it one.
    let mut bare = None;
    while let Some(&byte) = path.get(read) {
        let in_front = write > 0 && path.get(write - 1) == Some(&b'/');
        if in_front && let Some(one) = dot(path, read) {
            if let Some(next) = segment_end(path, one) {
                read = next;
                continue;
            }
            if let Some(next) = dot(path, one).and_then(|two| segment_end(path, two)) {
                read = next;
                let parent = path.get(..write - 1).unwrap_or_default();
                write = parent
                    .iter()
                    .rposition(|byte| *byte == b'/')
                    .map_or(1, |slash| slash + 1);
                bare = None;
                continue;
            }
        }
        let near = bare.is_some_and(|at| write <= at + 2);
        let (out, taken, kept) = match (byte, escape(path, read)) {
            (b'\\', _) => (b'/', 1, 1),
            (_, Some(decoded)) if unreserved(decoded) && !(near && decoded.is_ascii_hexdigit()) => (decoded, 3, 1),
            (_, Some(_)) => (byte, 3, 3),
            (b'%', None) => {
                bare = Some(write);
                (byte, 1, 1)
            }
            _ => (byte, 1, 1),
        };
        if kept == 1 {
            if let Some(slot) = path.get_mut(write) {
                *slot = out;
            }
        } else {
            path.copy_within(read..read + taken, write);
        }
        read += taken;
        write += kept;
    }
    write
}

/// Drops each slash behind a slash.
fn merge(path: &mut [u8]) -> usize {
    let (mut write, mut last) = (0, 0);
    for read in 0..path.len() {
        let byte = path.get(read).copied().unwrap_or_default();
        if byte == b'/' && last == b'/' {
            continue;
        }
        if let Some(slot) = path.get_mut(write) {
            *slot = byte;
        }
        write += 1;
        last = byte;
    }
    write
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOTS: Rules = Rules {
        dot_segments: true,
        merge_slashes: false,
    };
    const BOTH: Rules = Rules {
        dot_segments: true,
        merge_slashes: true,
    };

    fn normal(path: &str, rules: Rules) -> String {
        let mut bytes = path.as_bytes().to_vec();
        let length = normalize(&mut bytes, rules).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    // C3
    #[test]
    fn dot_segments_are_resolved_however_they_are_written() {
        for (path, expected) in [
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/%2E./admin", "/admin"),
            ("/public/.%2e/admin?x=/../y", "/admin?x=/../y"),
            ("/public\\..\\admin", "/admin"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/a/b"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c/d.", "/a/.b/..c/d."),
            ("/%61%2Db%5f~", "/a-b_~"),
            ("/", "/"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(normal(path, DOTS), expected, "{path}");
        }
    }

    // C3
    #[test]
    fn encoded_separators_and_odd_percent_signs_stay() {
        for path in [
            "/a%2F..%2fb",
            "/a%5c..%5Cb",
            "/%252e%252e/a",
            "/100%",
            "/%zz",
            "/%%32%65",
            "/%2%65",
        ] {
            let again = normal(path, DOTS);
            assert_eq!(normal(&again, DOTS), again, "{path}");
            assert!(!again.contains("%2e/") && !again.contains("%2E"), "{path} {again}");
        }
        assert_eq!(normal("/a%2F..%2fb", DOTS), "/a%2F..%2fb");
        assert_eq!(normal("/%2%65%2%65/a", DOTS), "/%2%65%2%65/a");
    }

    // C3
    #[test]
    fn encoded_nul_is_refused_and_nothing_changed() {
        let mut path = b"/a/../%00".to_vec();
        assert_eq!(normalize(&mut path, DOTS), Err(EncodedNul));
        assert_eq!(path, b"/a/../%00");
    }

    // C3
    #[test]
    fn slashes_are_merged_only_on_request_and_only_in_the_path() {
        assert_eq!(normal("//a///b/?c=//", BOTH), "/a/b/?c=//");
        assert_eq!(normal("//", BOTH), "/");
        assert_eq!(normal("/a//../b", BOTH), "/a/b");
        assert_eq!(normal("//a///b", DOTS), "//a///b");
        assert_eq!(normal("/a/../b", Rules::default()), "/a/../b");
    }

    /// RFC 3986, 5.2.4, word for word.
    fn remove_dot_segments(path: &str) -> String {
        let (mut input, mut output) = (path.to_owned(), String::new());
        while !input.is_empty() {
            if input.starts_with("/./") || input == "/." {
                input = format!("/{}", input.get(3..).unwrap_or_default());
            } else if input.starts_with("/../") || input == "/.." {
                input = format!("/{}", input.get(4..).unwrap_or_default());
                output.truncate(output.rfind('/').unwrap_or(0));
            } else {
                let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
                output.push_str(&input[..end]);
                input = input[end..].to_owned();
            }
        }
        output
    }

    proptest! {
        #[test]
        fn resolves_as_the_rfc_says(path in "(/(\\.|\\.\\.|%2e|%2E\\.|[a-b.]{0,3}|%2F|%41)){1,8}", query in "(\\?[a./%]{0,6})?") {
            let decoded = path.replace("%2e", ".").replace("%2E", ".").replace("%41", "A");
            prop_assert_eq!(normal(&format!("{path}{query}"), DOTS), remove_dot_segments(&decoded) + &query);
        }

        #[test]
        fn normal_form_is_stable_and_safe(path in "/[a/.%2eEfF5c0-9\\\\]{0,24}", merge in any::<bool>()) {
            let rules = Rules { dot_segments: true, merge_slashes: merge };
            let mut bytes = path.as_bytes().to_vec();
            let Ok(length) = normalize(&mut bytes, rules) else {
                prop_assert!(path.contains("%00"));
                return Ok(());
            };
            prop_assert!(length <= path.len() && bytes[0] == b'/');
            let once = String::from_utf8(bytes[..length].to_vec()).unwrap();
            prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."), "{}", once);
            prop_assert!(!once.contains('\\'), "{}", once);
            prop_assert!(!merge || !once.contains("//"), "{}", once);
            prop_assert_eq!(normal(&once, rules), once);
        }

        #[test]
        fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = normalize(&mut bytes, BOTH);
        }
    }
}

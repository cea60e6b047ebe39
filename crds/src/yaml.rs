//! What is wrong with a text that should be YAML, in one line.

use std::borrow::Cow;

/// Where and why a text is no YAML, as `line 3 column 7: unclosed bracket '{'`. The text's own first line counts as
/// `first_line`, which is 1 unless it is a part of something longer.
#[must_use]
pub fn reason(error: &serde_saphyr::Error, first_line: u64) -> String {
    let text = error.to_string();
    // The library says what and where in the first line; below it draws a picture.
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let Some(at) = error.location() else {
        return plainly(line).into_owned();
    };
    let said = format!("line {} column {}: ", at.line(), at.column());
    let what = plainly(line.strip_prefix(&said).unwrap_or(line));
    let number = at.line().saturating_add(first_line.saturating_sub(1));
    format!("line {number} column {}: {what}", at.column())
}

/// The library speaks to programmers at times.
fn plainly(text: &str) -> Cow<'_, str> {
    if let Some(rest) = text.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(", set ").next().unwrap_or(rest);
        return Cow::Owned(format!("{key} is there twice; remove one"));
    }
    if text.starts_with("recursive references") {
        return Cow::Borrowed("an alias stands for something that it is part of");
    }
    if text.contains("found a tab") {
        return Cow::Borrowed("there is a tab; indent with spaces");
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_reason_is_one_line_in_plain_words() {
        for (text, expected) in [
            ("a: 1\nb: {c\n", "line 11 column 4: unclosed bracket '{'"),
            ("a: 1\na: 2\n", "line 11 column 1: a is there twice; remove one"),
            (
                "a: &x [*x]\n",
                "line 10 column 8: an alias stands for something that it is part of",
            ),
            ("a: b\n\tc: d\n", "line 10 column 4: there is a tab; indent with spaces"),
            ("a: *nope\n", "line 10 column 4: alias references unknown anchor"),
        ] {
            let error = serde_saphyr::from_str::<Value>(text).unwrap_err();
            assert_eq!(reason(&error, 10), expected);
        }
    }
}

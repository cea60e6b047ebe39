//! Regular expressions that mean the same to both data planes.
//!
//! Envoy matches with RE2, the native proxy with Rust's `regex`. Both know nearly the same syntax; where one of them knows
//! more, or reads the same text otherwise, the expression is refused here with what to write instead. What both libraries
//! refuse alike is left to [`mizzen_model::Pattern`], which compiles it.
//!
//! Envoy has RE2 read expressions and texts byte by byte (as Latin-1): `.` is a byte, `\d`, `\s` and `\w` are those of ASCII.
//! The native proxy does so too. A character that has several bytes can stand for itself, and nothing else.
//!
//! Source: <https://github.com/google/re2/wiki/Syntax>.

use std::iter::Peekable;
use std::str::Chars;

/// How often something may be repeated, repetitions within repetitions multiplied.
const MOST: u64 = 1000;

/// Names in `[[:name:]]`.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// What is known of an expression that both read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    /// How many groups capture.
    pub(crate) groups: usize,
}

/// Reads an expression.
///
/// # Errors
/// What not both libraries read, or read alike, and what to write instead.
pub(crate) fn read(text: &str) -> Result<Read, String> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        groups: 0,
        depth: 0,
    };
    reader.alternatives()?;
    Ok(Read { groups: reader.groups })
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    groups: usize,
    depth: usize,
}

impl Reader<'_> {
    fn eat(&mut self, wanted: char) -> bool {
        self.rest.next_if_eq(&wanted).is_some()
    }

    /// As many of these as there are.
    fn word(&mut self, of: impl Fn(&char) -> bool) -> String {
        std::iter::from_fn(|| self.rest.next_if(&of)).collect()
    }

    /// Whether what lies ahead starts so.
    fn ahead(&self, wanted: &str) -> bool {
        let mut ahead = self.rest.clone();
        wanted.chars().all(|c| ahead.next() == Some(c))
    }

    /// Up to a closing parenthesis or the end. Tells how often its innermost part may be repeated.
    fn alternatives(&mut self) -> Result<u64, String> {
        const DEEPEST: usize = 200; // below what either library takes
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("groups nested deeper than {DEEPEST}"));
        }
        let mut most = 1;
        while let Some(c) = self.rest.next() {
            let inner = match c {
                // What a library puts around the expression, it would close.
                ')' if self.depth == 1 => return Err("an unopened ): write \\) for the character".to_owned()),
                ')' => break,
                '|' => continue,
                '(' => self.group()?,
                '[' => {
                    self.class()?;
                    1
                }
                '\\' => {
                    self.escape(false)?;
                    1
                }
                '*' | '+' | '?' => return Err(format!("{c} repeats nothing: write \\{c} for the character")),
                '{' => return Err("{ repeats nothing: write \\{ for the character".to_owned()),
                c if !c.is_ascii() && matches!(self.rest.peek(), Some('*' | '+' | '?' | '{')) => {
                    return Err(format!("a repetition of the last byte of {c}: write (?:{c})"));
                }
                _ => 1,
            };
            most = most.max(self.repeated(inner)?);
        }
        self.depth -= 1;
        Ok(most)
    }

    /// The repetition after something, if there is one.
    fn repeated(&mut self, inner: u64) -> Result<u64, String> {
        let times = match self.rest.peek() {
            Some('*' | '+' | '?') => {
                self.rest.next();
                1
            }
            Some('{') => {
                self.rest.next();
                self.counts()?
            }
            _ => return Ok(inner),
        };
        let _lazy = self.eat('?');
        if let Some(next @ ('*' | '+' | '?' | '{')) = self.rest.peek() {
            return Err(format!(
                "a repetition of a repetition ({next}): write (?:…) around the inner one; there are no possessive ones"
            ));
        }
        let all = inner.saturating_mul(times.max(1));
        if all > MOST {
            return Err(format!(
                "a repetition of more than {MOST}, repetitions within repetitions multiplied"
            ));
        }
        Ok(all)
    }

    /// `n}`, `n,}` or `n,m}`.
    fn counts(&mut self) -> Result<u64, String> {
        let wrong = || "{…} that is not {n}, {n,} or {n,m}: write \\{ for the character".to_owned();
        let least = self.word(char::is_ascii_digit);
        let most = self.eat(',').then(|| self.word(char::is_ascii_digit));
        if least.is_empty() || !self.eat('}') {
            return Err(wrong());
        }
        let value = |digits: &str| digits.parse().unwrap_or(u64::MAX);
        let times = match most.as_deref() {
            None | Some("") => value(&least),
            Some(most) => value(most),
        };
        if times > MOST || value(&least) > MOST {
            return Err(format!("a repetition of more than {MOST}"));
        }
        Ok(times)
    }

    fn group(&mut self) -> Result<u64, String> {
        if !self.eat('?') {
            self.groups += 1;
            return self.alternatives();
        }
        for (start, what) in [("=", "ahead"), ("!", "ahead"), ("<=", "behind"), ("<!", "behind")] {
            if self.ahead(start) {
                return Err(format!(
                    "looking {what} with (?{start}…): there is no such thing in RE2"
                ));
            }
        }
        for start in ["P<", "<"] {
            if self.ahead(start) {
                for _ in start.chars() {
                    self.rest.next();
                }
                return self.named();
            }
        }
        self.flags()
    }

    fn named(&mut self) -> Result<u64, String> {
        let name = self.word(|c| c.is_ascii_alphanumeric() || *c == '_');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !self.eat('>') {
            return Err(
                "a group's name must consist of ASCII letters, digits and _, and not begin with a digit".to_owned(),
            );
        }
        self.groups += 1;
        self.alternatives()
    }

    /// `flags)` for what follows, or `flags:…)`.
    fn flags(&mut self) -> Result<u64, String> {
        loop {
            match self.rest.next() {
                Some('i' | 'm' | 's' | 'U' | '-') => {}
                Some(':') => return self.alternatives(),
                // They repeat nothing: what follows is looked at as if it stood alone.
                Some(')') => return self.no_repetition().map(|()| 1),
                Some(other) => return Err(format!("(?{other}…): there are only the flags i, m, s and U")),
                None => return Err("an unfinished (?".to_owned()),
            }
        }
    }

    fn no_repetition(&mut self) -> Result<(), String> {
        match self.rest.peek() {
            Some(next @ ('*' | '+' | '?' | '{')) => Err(format!("{next} repeats flags: write something between")),
            _ => Ok(()),
        }
    }

    /// What follows a backslash.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(c) = self.rest.next() else {
            return Err("a \\ at the end: write \\\\ for the character".to_owned());
        };
        match c {
            'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'd' | 'D' | 's' | 'S' | 'w' | 'W' => Ok(()),
            'b' if !in_class && self.ahead("{") => Err("\\b{…}: write \\b for a word's border".to_owned()),
            'A' | 'b' | 'B' | 'z' if !in_class => Ok(()),
            'p' | 'P' => Err(format!(
                "\\{c}: bytes are matched, not characters of Unicode: write what is meant, as in [A-Za-z]"
            )),
            'x' => self.hexadecimal(),
            'Q' | 'E' => Err("\\Q…\\E: write \\ before each character that means something".to_owned()),
            'C' => Err("\\C (a single byte): write . for a character".to_owned()),
            '0'..='9' => Err(format!(
                "\\{c}: there are no references to groups in an expression; write \\x41 for a character's code"
            )),
            '<' | '>' | '_' => Err(format!("\\{c}: write {c} for the character, \\b for a word's border")),
            c if c.is_ascii_punctuation() => Ok(()),
            c => Err(format!("\\{c}: there is no such escape")),
        }
    }

    fn hexadecimal(&mut self) -> Result<(), String> {
        let mut digits = String::new();
        let braced = self.eat('{');
        while let Some(digit) = self.rest.next_if(char::is_ascii_hexdigit) {
            digits.push(digit);
            if !braced && digits.len() == 2 {
                break;
            }
        }
        let complete = if braced { self.eat('}') } else { digits.len() == 2 };
        let code = u32::from_str_radix(&digits, 16).ok();
        match code.filter(|code| complete && *code < 0x80) {
            Some(_) => Ok(()),
            None => Err(
                "\\x…: write \\x41 or \\x{41}, with the code of an ASCII character, or the character itself".to_owned(),
            ),
        }
    }

    /// Up to the closing bracket.
    fn class(&mut self) -> Result<(), String> {
        let unfinished = || "an unfinished [: write \\[ for the character".to_owned();
        let _negated = self.eat('^');
        let _first = self.eat(']');
        loop {
            match self.rest.next() {
                None => return Err(unfinished()),
                Some(']') => return Ok(()),
                Some('\\') => self.escape(true)?,
                Some('[') if self.ahead(":") => self.posix()?,
                Some('[') => return Err("a [ within [ ]: write \\[ for the character".to_owned()),
                Some(c @ ('&' | '-' | '~')) if self.ahead(&c.to_string()) => {
                    return Err(format!("{c}{c} within [ ]: write \\{c}\\{c} for the characters"));
                }
                Some(c) if !c.is_ascii() => return Err(format!("{c} within [ ]: write (?:{c}|…) for the character")),
                Some(_) => {}
            }
        }
    }

    fn posix(&mut self) -> Result<(), String> {
        self.rest.next();
        let _negated = self.eat('^');
        let name = self.word(char::is_ascii_alphabetic);
        if POSIX.contains(&name.as_str()) && self.eat(':') && self.eat(']') {
            Ok(())
        } else {
            Err(format!(
                "[:{name}…: write one of {} as in [[:alpha:]]",
                POSIX.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // C2, N4
    #[test]
    fn what_both_libraries_read_alike_is_taken() {
        for (text, groups) in [
            ("", 0),
            ("/api/v[0-9]+/.*", 0),
            (r"^/products/(\d+)(?:/reviews)?$", 1),
            (r"(?P<user>\w+)@(?<host>[^@\s]+)", 2),
            (r"(?i)mobile|tablet", 0),
            (r"(?i:a)(?-s).(?U)a+", 0),
            (r"[]a-z\]^-]", 0),
            (r"[^]\n]", 0),
            (r"[[:alpha:][:^digit:]_]", 0),
            (r"\x41\x{7f}\a\f\t\n\r\v", 0),
            (r"\Aa\b\B.\z", 0),
            (r"\.\-\/\{\}\[\]\(\)\*\+\?\|\^\$\\", 0),
            ("a{2}b{2,}c{2,30}?d*?e+?f??", 0),
            ("(a{10}){100}", 1),
            ("(|a)()a||b", 2),
            ("a}b]c", 0),
            ("ä(?:ö)+", 0),
            ("[a&b~c-]", 0),
        ] {
            assert_eq!(read(text), Ok(Read { groups }), "{text}");
            if !text.is_empty() {
                mizzen_model::Pattern::new(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
        }
    }

    // C2, N4
    #[test]
    fn what_one_reads_otherwise_is_refused_with_what_to_write() {
        for (text, says) in [
            // Both libraries take it with (?: ) around it, and then it is no longer whole paths that match.
            ("a)|(?:b", "an unopened )"),
            ("a)", "an unopened )"),
            ("(?=a)", "looking ahead"),
            ("(?!a)", "looking ahead"),
            ("(?<=a)", "looking behind"),
            ("(?<!a)", "looking behind"),
            ("a*+", "possessive"),
            ("a++", "possessive"),
            ("a?+", "possessive"),
            ("a**", "repetition of a repetition"),
            ("a*??", "repetition of a repetition"),
            ("a{2}{3}", "repetition of a repetition"),
            ("a{2}*", "repetition of a repetition"),
            ("*a", "repeats nothing"),
            ("a|*b", "repeats nothing"),
            ("(+a)", "repeats nothing"),
            ("{2}", "repeats nothing"),
            ("(?i)*", "repeats flags"),
            ("a{,3}", "{n}"),
            ("a{", "{n}"),
            ("a{x}", "{n}"),
            ("a{ 2 }", "{n}"),
            ("a{1001}", "more than 1000"),
            ("a{1,1001}", "more than 1000"),
            ("a{99999999999999999999}", "more than 1000"),
            ("((a{100}){11})", "multiplied"),
            (r"\C", "single byte"),
            (r"\Qa.b\E", r"\Q"),
            (r"(a)\1", "references"),
            (r"\012", "references"),
            (r"\<a\>", "border"),
            (r"\b{start}a", "border"),
            (r"\_", "write _"),
            (r"\u0041", "no such escape"),
            (r"\h", "no such escape"),
            (r"\Z", "no such escape"),
            (r"\ä", "no such escape"),
            (r"[\b]", "no such escape"),
            (r"\pL", "bytes"),
            (r"[\P{Greek}]", "bytes"),
            ("ä+", "(?:ä)"),
            ("[aä]", "within"),
            (r"\xff", r"\x41"),
            (r"\x4", r"\x41"),
            (r"\x{110000}", r"\x41"),
            (r"\x{D800}", r"\x41"),
            ("[a-z&&[^b]]", "&&"),
            ("[a--b]", "--"),
            ("[a~~b]", "~~"),
            ("[a[b]]", "within"),
            ("[[:alfa:]]", "alpha"),
            ("[a", "unfinished"),
            ("(?x)a b", "flags"),
            ("(?u)a", "flags"),
            ("(?R)a", "flags"),
            ("(?P<1>a)", "name"),
            ("(?P<a.b>a)", "name"),
            ("(?P=a)", "flags"),
            ("(?#comment)", "flags"),
            ("a\\", "at the end"),
        ] {
            let refused = read(text).expect_err(text);
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(read(&"(".repeat(100_000)).unwrap_err().contains("nested"));
    }
}

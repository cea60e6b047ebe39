//! The tokens of a label selector.

/// One token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Error,
    End,
    Word,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

/// All tokens with their text; the last is [`Token::End`].
pub(super) fn scan(text: &str) -> Vec<(Token, String)> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (token, literal, length) = if is_symbol(first) { symbol(rest) } else { word(rest) };
        tokens.push((token, literal));
        rest = rest.get(length..).unwrap_or_default().trim_start_matches(is_space);
    }
    tokens.push((Token::End, String::new()));
    tokens
}

fn word(text: &str) -> (Token, String, usize) {
    let end = text.find(|c| is_symbol(c) || is_space(c)).unwrap_or(text.len());
    let word = text.get(..end).unwrap_or_default();
    let token = match word {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Word,
    };
    (token, word.to_owned(), end)
}

/// The longest operator that a run of symbols begins with.
fn symbol(text: &str) -> (Token, String, usize) {
    const SYMBOLS: [(&str, Token); 9] = [
        ("==", Token::DoubleEquals),
        ("!=", Token::NotEquals),
        (")", Token::Close),
        ("(", Token::Open),
        (",", Token::Comma),
        ("!", Token::Not),
        ("=", Token::Equals),
        (">", Token::Greater),
        ("<", Token::Less),
    ];
    for (literal, token) in SYMBOLS {
        if text.starts_with(literal) {
            return (token, literal.to_owned(), literal.len());
        }
    }
    (Token::Error, String::new(), text.len())
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

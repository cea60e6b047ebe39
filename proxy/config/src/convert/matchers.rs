//! String, header and query matchers.

use super::Result;
use super::fields::{lower, missing, unsupported};
use crate::error::{At, ConfigError};
use crate::matcher::{HeaderMatch, HeaderTest, Pattern, QueryMatch, QueryTest, StringMatch, StringTest};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;

pub(super) fn pattern(at: At<'_>, regex: &matcher_pb::RegexMatcher) -> Result<Pattern> {
    Pattern::new(&regex.regex).map_err(|source| ConfigError::Regex {
        at: at.to_string(),
        source,
    })
}

pub(super) fn string_match(at: At<'_>, matcher: &matcher_pb::StringMatcher) -> Result<StringMatch> {
    use matcher_pb::string_matcher::MatchPattern;
    let ignore_case = matcher.ignore_case;
    let text = |text: &str| if ignore_case { lower(text) } else { text.into() };
    let test = match matcher.match_pattern.as_ref() {
        Some(MatchPattern::Exact(value)) => StringTest::Exact(text(value)),
        Some(MatchPattern::Prefix(value)) => StringTest::Prefix(text(value)),
        Some(MatchPattern::Suffix(value)) => StringTest::Suffix(text(value)),
        Some(MatchPattern::Contains(value)) => StringTest::Contains(text(value)),
        Some(MatchPattern::SafeRegex(regex)) => {
            return Ok(StringMatch {
                test: StringTest::Regex(pattern(at.field("safe_regex"), regex)?),
                ignore_case: false,
            });
        }
        Some(MatchPattern::Custom(_)) => return Err(unsupported(at.field("custom"), "a custom string matcher")),
        None => return Err(missing(at.field("match_pattern"))),
    };
    Ok(StringMatch { test, ignore_case })
}

pub(super) fn header_matches(at: At<'_>, matchers: &[pb::HeaderMatcher]) -> Result<Box<[HeaderMatch]>> {
    matchers
        .iter()
        .enumerate()
        .map(|(i, matcher)| header_match(at.index("headers", i), matcher))
        .collect()
}

#[expect(deprecated, reason = "the old spellings of string matches are still valid in xDS v3")]
fn header_match(at: At<'_>, matcher: &pb::HeaderMatcher) -> Result<HeaderMatch> {
    use pb::header_matcher::HeaderMatchSpecifier;
    if matcher.name.is_empty() {
        return Err(missing(at.field("name")));
    }
    let exact = |test| {
        HeaderTest::Value(StringMatch {
            test,
            ignore_case: false,
        })
    };
    let test = match matcher.header_match_specifier.as_ref() {
        None => HeaderTest::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => HeaderTest::Present(*present),
        Some(HeaderMatchSpecifier::StringMatch(string)) => {
            HeaderTest::Value(string_match(at.field("string_match"), string)?)
        }
        Some(HeaderMatchSpecifier::RangeMatch(range)) => HeaderTest::Range {
            start: range.start,
            end: range.end,
        },
        Some(HeaderMatchSpecifier::ExactMatch(text)) if text.is_empty() => HeaderTest::Present(true),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => exact(StringTest::Exact(text.as_str().into())),
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => exact(StringTest::Prefix(text.as_str().into())),
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => exact(StringTest::Suffix(text.as_str().into())),
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => exact(StringTest::Contains(text.as_str().into())),
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            exact(StringTest::Regex(pattern(at.field("safe_regex_match"), regex)?))
        }
    };
    Ok(HeaderMatch {
        name: lower(&matcher.name),
        test,
        invert: matcher.invert_match,
        missing_is_empty: matcher.treat_missing_header_as_empty,
    })
}

pub(super) fn query_matches(at: At<'_>, matchers: &[pb::QueryParameterMatcher]) -> Result<Box<[QueryMatch]>> {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier;
    matchers
        .iter()
        .enumerate()
        .map(|(i, matcher)| {
            let at = at.index("query_parameters", i);
            if matcher.name.is_empty() {
                return Err(missing(at.field("name")));
            }
            let test = match matcher.query_parameter_match_specifier.as_ref() {
                None => QueryTest::Present(true),
                Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryTest::Present(*present),
                Some(QueryParameterMatchSpecifier::StringMatch(string)) => {
                    QueryTest::Value(string_match(at.field("string_match"), string)?)
                }
            };
            Ok(QueryMatch {
                name: matcher.name.as_str().into(),
                test,
            })
        })
        .collect()
}

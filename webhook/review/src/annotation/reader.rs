//! Reading single annotations.

use super::AnnotationError;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Reads annotations one by one.
pub(super) struct Reader<'a> {
    pub(super) annotations: &'a BTreeMap<String, String>,
}

impl<'a> Reader<'a> {
    pub(super) fn text(&self, annotation: &str) -> Option<&'a str> {
        self.annotations.get(annotation).map(|value| value.trim())
    }

    pub(super) fn read<T>(
        &self,
        annotation: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, AnnotationError> {
        match self.text(annotation) {
            None => Ok(None),
            Some(value) => match parse(value) {
                Some(parsed) => Ok(Some(parsed)),
                None => Err(AnnotationError {
                    annotation,
                    value: value.to_owned(),
                    expected: expected.into(),
                }),
            },
        }
    }

    pub(super) fn checked(
        &self,
        annotation: &'static str,
        expected: &'static str,
        check: fn(&str) -> bool,
        into: &mut String,
    ) -> Result<(), AnnotationError> {
        if let Some(text) = self.read(annotation, expected, |value| check(value).then(|| value.to_owned()))? {
            *into = text;
        }
        Ok(())
    }

    pub(super) fn flag(&self, annotation: &'static str, default: bool) -> Result<bool, AnnotationError> {
        Ok(self
            .read(annotation, "true or false", |value| value.parse().ok())?
            .unwrap_or(default))
    }

    pub(super) fn json<T: DeserializeOwned>(
        &self,
        annotation: &'static str,
        what: &'static str,
    ) -> Result<Vec<T>, AnnotationError> {
        let Some(value) = self.text(annotation) else {
            return Ok(Vec::new());
        };
        serde_json::from_str(value).map_err(|error| AnnotationError {
            annotation,
            value: value.to_owned(),
            expected: format!("{what} as a JSON array ({error})").into(),
        })
    }
}

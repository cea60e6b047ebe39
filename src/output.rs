//! Standard output, of which the reader may have gone: `mizzen install | head -1`.
//!
//! In: text. Out: the text, as far as somebody reads it. A closed pipe is no error: who closed it has what they wanted.

use serde_json::{Value, json};
use std::io::{self, Write};

/// How objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// As YAML.
    Yaml,
    /// As a List in JSON.
    Json,
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written, for another reason than that nobody reads it.
pub(crate) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    unless_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes objects as the List that kubectl reads.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_list<'a>(objects: impl Iterator<Item = &'a Value>) -> io::Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>() });
    write(&format!("{list:#}\n"))
}

/// Prints a line of progress. Whatever happens to it, the work goes on: half an installation helps nobody.
pub(crate) fn line(text: &str) {
    // Where could it be said that it cannot be said?
    let _ = write(&format!("{text}\n"));
}

fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_left_is_no_error_and_a_full_disk_is_one() {
        assert!(unless_closed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(unless_closed(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}

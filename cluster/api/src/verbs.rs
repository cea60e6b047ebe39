//! What can be done with objects, one file per verb.

pub(crate) mod body;
pub(crate) mod delete;
pub(crate) mod object;
pub(crate) mod patch;
pub(crate) mod pod;
pub(crate) mod read;
pub(crate) mod scale;
pub(crate) mod watch;
pub(crate) mod write;

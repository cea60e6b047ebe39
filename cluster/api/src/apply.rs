//! Server-side apply: field sets, owners, conflicts.

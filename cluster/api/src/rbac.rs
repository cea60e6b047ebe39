//! Role based decisions.

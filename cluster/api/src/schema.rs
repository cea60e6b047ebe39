//! Structural schemas: pruning, defaulting, validation.

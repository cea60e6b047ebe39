//! `mizzen discovery`: the control plane.

pub(crate) use mizzen_discovery::{Args, run};

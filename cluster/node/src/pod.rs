//! A pod: its object comes in, processes and the object's status go out. What is decided is pure (`state`, `status`, `env`, `security`);
//! [`worker`] does it.

pub(crate) mod env;
pub(crate) mod security;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod volumes;
pub(crate) mod worker;

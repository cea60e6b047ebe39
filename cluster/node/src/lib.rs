//! The node of a Kubernetes on one machine: what a kubelet, a container runtime and a service proxy do, for programs of this machine.
//!
//! In come a [`kube::Client`] and a [`NodeConfig`]; out go processes and network namespaces, rules for service addresses, a name server,
//! and what a kubelet writes: its Node and Lease, the status of pods, events. [`Streams`] serves logs, exec, attach and port-forward.
//!
//! A pod is a network namespace with a veth on the node's bridge. A container is a process with its own mounts and process ids in it;
//! an image is a row of a table that names a program. The program sees the machine's files read-only, with the pod's volumes laid over.
//!
//! It never changes anything outside the network namespace it is started in and its state folder; it never pulls an image; it runs as
//! root of whatever user namespace it is started in and needs `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` there. For volumes in memory it needs
//! a mount namespace of its own. All that it starts ends with it, however it ends: namespaces are held by descriptors, and the first
//! process of every container dies with the thread that made it. (A first process that gives up root or runs a set-user-id program loses
//! that bond; if the node itself is in a process namespace of its own, nothing can outlive it.)
//!
//! Not there: IPv6, persistent volume claims, ephemeral containers, session affinity, seccomp and AppArmor profiles, huge pages, swap,
//! following of redirects in HTTP probes, mount propagation, and resizing in place.

mod cgroups;
mod config;
mod dns;
mod events;
mod exec;
mod helper;
mod launch;
mod logs;
mod netlink;
mod node;
mod order;
mod pod;
mod probe;
mod sandbox;
mod services;
mod stores;
mod streams;

pub use config::{Image, Images, NodeConfig, Outside};
pub use helper::helper_main;
pub use netlink::NetlinkError;
pub use node::{NodeError, RunningNode, start};
pub use streams::{StreamBody, Streams};

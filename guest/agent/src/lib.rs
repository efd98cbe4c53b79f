//! The agent of a Cuboid guest: PID 1, container runtime, and the host's ear, in one static binary with one thread.
//!
//! `sys` holds every `unsafe`; `boot` and `setup` make a machine of a kernel; `container` runs processes; `logs`, `copy`,
//! `probe`, `forward` serve them; `agent` answers the host's calls, which arrive through `channel`.

pub mod agent;
pub mod boot;
pub mod channel;
pub mod container;
pub mod copy;
pub mod error;
pub mod forward;
pub mod logs;
pub mod modules;
pub mod oom;
pub mod pb;
pub mod probe;
pub mod reaper;
pub mod rehearse;
pub mod rooted;
pub mod setup;
pub mod stats;
pub mod sys;
#[cfg(test)]
mod testing;

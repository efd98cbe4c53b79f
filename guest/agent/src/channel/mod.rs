//! The channel to the host: one byte stream, many calls at once. docs/design/0002-agent-channel.md is its contract.
//!
//! `frame` knows bytes, `streams` calls, `events` what must not get lost, `mux` drives them over a port, `port` is the
//! virtio-serial device, `vsock` what stands in its place under Firecracker. Nothing here knows what a call does.

mod events;
pub mod frame;
mod mux;
mod port;
mod streams;
mod vsock;

use tokio::sync::Notify;

pub use events::EventLog;
pub use mux::{Handler, MAX_STREAMS, Mux};
pub use port::VirtioPort;
pub use streams::{Gone, Incoming, StreamHandle, WINDOW};
pub use vsock::VsockPort;

/// Wait until `check` gives a value, looking again whenever `changed` is notified.
async fn wait_until<T>(changed: &Notify, mut check: impl FnMut() -> Option<T>) -> T {
    loop {
        // Made before the look, so that a change between the look and the wait is not missed.
        let notified = changed.notified();
        if let Some(value) = check() {
            return value;
        }
        notified.await;
    }
}

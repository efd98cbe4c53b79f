//! Files into and out of a container, as tar streams. Neither the tar nor the container's links lead out of its root.

mod receive;
mod send;
pub mod tar;

pub use receive::receive;
pub use send::send;

//! A new identity for a guest that was restored while it ran.

use super::{Pod, identity, network};
use crate::error::Outcome;
use crate::pb;

/// Randomness first; then the clock, names, ids, and addresses, each unless it is empty in the call.
///
/// Gives the new boot id, if there is one. What a container runs goes on; its connections as well, as long as their
/// address stays.
pub async fn renew(pod: &Pod, call: &pb::Renew) -> Outcome<Option<String>> {
    identity::reseed_clone(&call.entropy)?;
    identity::check_ids(&call.machine_id, &call.boot_id)?;
    identity::set_clock(call.now_unix_ns)?;
    pod.names.borrow_mut().renew(call)?;
    let boot_id = identity::write_ids(&call.machine_id, &call.boot_id)?;
    network::renew(&call.interfaces).await?;
    Ok(Some(boot_id).filter(|_| !call.boot_id.is_empty()))
}

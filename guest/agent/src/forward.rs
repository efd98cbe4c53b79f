//! Port forwarding: one TCP connection inside the pod, carried over a stream.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::channel::{Incoming, StreamHandle};
use crate::error::{Failure, Outcome};
use crate::pb;

const PIECE: usize = 65_536;

/// Connects, then carries bytes both ways until both have ended.
pub async fn serve(call: &pb::PortForward, pod_ip: &str, stream: &StreamHandle) -> Outcome<()> {
    let port = u16::try_from(call.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| Failure::invalid(format!("{} is no port", call.port)))?;
    let connection = connect(&addresses(&call.host, pod_ip)?, port).await?;
    let (mut from, mut to) = connection.into_split();
    let back = async {
        let mut buffer = vec![0u8; PIECE];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if stream.send(0, &buffer[..count]).await.is_err() {
                return;
            }
        }
        // The host may have gone; then the reply goes nowhere.
        let _ = stream.end(0).await;
    };
    let forth = async {
        loop {
            match stream.recv().await {
                Some(Incoming::Data(_, bytes)) => {
                    if to.write_all(&bytes).await.is_err() {
                        return true;
                    }
                }
                Some(Incoming::End(_)) => {
                    // The peer may have closed already.
                    let _ = to.shutdown().await;
                    return true;
                }
                Some(Incoming::Reset) | None => return false,
            }
        }
    };
    tokio::pin!(back, forth);
    tokio::select! {
        () = &mut back => {}
        alive = &mut forth => if alive { back.await },
    }
    stream.reply(pb::reply::Reply::Empty(pb::Empty {})).await;
    Ok(())
}

/// Where to try: what was asked for, or the loopback addresses and then the pod's.
fn addresses(host: &str, pod_ip: &str) -> Outcome<Vec<IpAddr>> {
    if host.is_empty() || host == "localhost" {
        let wanted = ["127.0.0.1", "::1", pod_ip];
        return Ok(wanted.iter().filter_map(|text| text.parse().ok()).collect());
    }
    let address = host.parse().map_err(|_| Failure::invalid(format!("{host:?} is no IP address")))?;
    Ok(vec![address])
}

async fn connect(addresses: &[IpAddr], port: u16) -> Outcome<TcpStream> {
    let mut refusal = None;
    for address in addresses {
        match TcpStream::connect((*address, port)).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                refusal.get_or_insert(Failure::system(&format!("connecting to port {port} in the pod"), &error));
            }
        }
    }
    Err(refusal.unwrap_or_else(|| Failure::invalid("there is no address to connect to")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_host_the_pod_s_own_addresses_are_tried() {
        assert_eq!(addresses("", "10.0.0.2").unwrap().len(), 3);
        assert_eq!(addresses("", "").unwrap().len(), 2);
        assert_eq!(addresses("10.0.0.7", "").unwrap().len(), 1);
        assert!(addresses("example.org", "").is_err());
    }
}

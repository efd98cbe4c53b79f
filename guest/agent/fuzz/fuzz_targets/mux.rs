//! Any sequence of well-formed frames with any content: the multiplexer neither panics nor stops answering.
#![no_main]

use std::rc::Rc;
use std::time::Duration;

use cuboid_agent::channel::frame::{HEADER, Kind, MAX_PAYLOAD, append_checked};
use cuboid_agent::channel::{EventLog, Handler, Incoming, Mux, StreamHandle};
use cuboid_agent::pb;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::task::{LocalSet, spawn_local};

const KINDS: [Kind; 12] = [
    Kind::Hello, Kind::HelloAck, Kind::Call, Kind::Reply, Kind::Data, Kind::Credit, Kind::End, Kind::Reset,
    Kind::Event, Kind::EventAck, Kind::Ping, Kind::Pong,
];

struct Echo;

impl Handler for Echo {
    fn call(&self, _: pb::call::Call, stream: StreamHandle) {
        spawn_local(async move {
            while let Some(item) = stream.recv().await {
                match item {
                    Incoming::Data(channel, bytes) => drop(stream.send(channel, &bytes).await),
                    Incoming::End(channel) => drop(stream.end(channel).await),
                    Incoming::Reset => return,
                }
            }
        });
    }
}

fn script(frames: &[(u8, u8, u8, Vec<u8>)]) -> Vec<u8> {
    let mut wire = vec![0; HEADER + MAX_PAYLOAD];
    append_checked(&mut wire, Kind::Hello, 0, 0, b"");
    for (kind, flags, stream, payload) in frames {
        let kind = KINDS[usize::from(*kind) % KINDS.len()];
        append_checked(&mut wire, kind, flags & 3, u32::from(stream % 8), &payload[..payload.len().min(MAX_PAYLOAD)]);
    }
    append_checked(&mut wire, Kind::Ping, 0, 0, b"last");
    wire
}

fuzz_target!(|frames: Vec<(u8, u8, u8, Vec<u8>)>| {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    LocalSet::new().block_on(&runtime, async {
        let (mut host, guest) = duplex(1 << 16);
        spawn_local(Mux::new(Rc::new(Echo), EventLog::new()).run(guest));
        let wire = script(&frames);
        let answered = async {
            let mut seen = Vec::new();
            let (mut reader, mut writer) = tokio::io::split(&mut host);
            let read = async {
                while !seen.windows(4).any(|window| window == b"last") {
                    assert_ne!(reader.read_buf(&mut seen).await.unwrap_or(0), 0, "the agent hung up");
                }
            };
            let (written, ()) = tokio::join!(writer.write_all(&wire), read);
            assert!(written.is_ok());
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), answered).await.is_ok(), "the agent stands still");
    });
});

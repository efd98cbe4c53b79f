//! Any bytes, in any pieces: the decoder neither panics nor piles up memory, and finds the next HELLO afterwards.
#![no_main]

use cuboid_agent::channel::frame::{Decoder, HEADER, Kind, MAX_PAYLOAD, append_checked};
use cuboid_agent::pb;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: (Vec<u8>, u8, bool)| {
    let (bytes, piece, greeted) = data;
    let mut decoder = Decoder::new();
    let mut hello = Vec::new();
    append_checked(&mut hello, Kind::Hello, 0, 0, b"nonce");
    if greeted {
        decoder.buffer().extend_from_slice(&hello);
        assert!(decoder.next_frame().is_some());
    }
    for part in bytes.chunks(usize::from(piece) + 1) {
        decoder.buffer().extend_from_slice(part);
        while let Some(frame) = decoder.next_frame() {
            if frame.kind == Kind::Call {
                let _ = pb::Call::decode(frame.payload);
            }
        }
        assert!(decoder.buffer().len() <= HEADER + MAX_PAYLOAD);
    }
    let _ = pb::Call::decode(bytes.as_slice());
    decoder.buffer().extend_from_slice(&vec![0; HEADER + MAX_PAYLOAD]);
    decoder.buffer().extend_from_slice(&hello);
    assert_eq!(std::iter::from_fn(|| decoder.next_frame()).last().map(|frame| frame.kind), Some(Kind::Hello));
});

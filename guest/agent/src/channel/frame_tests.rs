#![allow(clippy::unwrap_used, clippy::expect_used)]

use prost::Message;

use super::*;
use crate::pb;
use crate::testing::Random;

const ZEROS: usize = HEADER + MAX_PAYLOAD;

fn host(kind: Kind, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_checked(&mut bytes, kind, 0, stream, payload);
    bytes
}

fn drain(decoder: &mut Decoder) -> Vec<Frame> {
    std::iter::from_fn(|| decoder.next_frame()).collect()
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Frame> {
    decoder.buffer().extend_from_slice(bytes);
    drain(decoder)
}

fn in_step() -> Decoder {
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &host(Kind::Hello, 0, b"n")).len(), 1);
    decoder
}

#[test]
fn frames_come_out_as_they_went_in_at_any_split() {
    let mut random = Random(7);
    for _ in 0..200 {
        let payloads: Vec<Vec<u8>> =
            (0..5).map(|_| (0..random.below(300)).map(|_| random.next() as u8).collect()).collect();
        let wire: Vec<u8> = payloads.iter().flat_map(|payload| host(Kind::Data, 9, payload)).collect();
        let mut decoder = in_step();
        let mut found = Vec::new();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(1 + random.below(rest.len()));
            found.extend(decode(&mut decoder, piece));
            rest = later;
        }
        let found: Vec<Vec<u8>> = found.into_iter().map(|frame| frame.payload.to_vec()).collect();
        assert_eq!(found, payloads);
    }
}

#[test]
fn a_frame_cut_at_any_byte_is_dropped_and_the_next_hello_is_found() {
    let cut = host(Kind::Call, 3, &[0x5a; 40]);
    for length in 0..cut.len() {
        let mut decoder = in_step();
        let mut wire = cut[..length].to_vec();
        wire.resize(length + ZEROS, 0);
        wire.extend(host(Kind::Hello, 0, b"again"));
        let frames = decode(&mut decoder, &wire);
        assert_eq!(frames.len(), 1, "cut at {length}");
        assert_eq!(frames[0].payload, b"again"[..]);
    }
}

#[test]
fn a_call_inside_a_broken_frame_is_not_believed() {
    let smuggled = host(Kind::Call, 5, b"steal");
    let mut outer = host(Kind::Data, 3, &smuggled);
    outer[12] ^= 1;
    let mut decoder = in_step();
    outer.extend(host(Kind::Call, 7, b"later"));
    assert!(decode(&mut decoder, &outer).is_empty());
    assert_eq!(decode(&mut decoder, &host(Kind::Hello, 0, b"n")).len(), 1);
}

#[test]
fn nothing_but_a_hello_is_believed_at_first() {
    let mut decoder = Decoder::new();
    assert!(decode(&mut decoder, &host(Kind::Call, 1, b"x")).is_empty());
}

#[test]
fn one_flipped_bit_anywhere_loses_the_frame() {
    let frame = host(Kind::Call, 3, b"payload");
    for bit in 0..frame.len() * 8 {
        let mut wire = frame.clone();
        wire[bit / 8] ^= 1 << (bit % 8);
        wire.resize(wire.len() + ZEROS, 0);
        assert!(decode(&mut in_step(), &wire).is_empty(), "bit {bit}");
    }
}

#[test]
fn an_oversized_length_is_no_frame() {
    let mut wire = host(Kind::Data, 3, b"");
    wire[8..12].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
    let mut decoder = in_step();
    assert!(decode(&mut decoder, &wire).is_empty());
    assert!(decoder.buffer().is_empty());
}

#[test]
fn garbage_never_panics_and_never_piles_up() {
    let mut random = Random(42);
    let mut decoder = in_step();
    for _ in 0..2_000 {
        let garbage: Vec<u8> = (0..random.below(4_096))
            .map(|_| if random.below(3) == 0 { MAGIC[random.below(2)] } else { random.next() as u8 })
            .collect();
        decode(&mut decoder, &garbage);
        assert!(decoder.buffer().len() < ZEROS + 4_096);
    }
    decode(&mut decoder, &vec![0; ZEROS]);
    assert_eq!(decode(&mut decoder, &host(Kind::Hello, 0, b"n")).len(), 1);
}

#[test]
fn the_largest_frame_fits() {
    let mut decoder = in_step();
    let frames = decode(&mut decoder, &host(Kind::Data, 3, &vec![1; MAX_PAYLOAD]));
    assert_eq!(frames[0].payload.len(), MAX_PAYLOAD);
}

/// A call of a kind by its number, with something in it.
fn call(kind: usize) -> pb::Call {
    use pb::call::Call;
    let name = String::from("app");
    let volume = pb::volume::Source::Disk(pb::DiskVolume { size_bytes: 1 << 40 });
    let call = match kind {
        0 => Call::Setup(pb::Setup {
            hostname: name.clone(),
            hosts: vec![pb::Host { ip: "10.0.0.1".into(), names: vec![name.clone()] }],
            sysctls: [("net.core.somaxconn".to_owned(), "128".to_owned())].into(),
            volumes: vec![pb::Volume { name, source: Some(volume), fs_group: Some(7) }],
            ..Default::default()
        }),
        1 => Call::StartContainer(pb::StartContainer {
            name,
            args: vec!["sh".into()],
            probes: vec![pb::Probe {
                action: Some(pb::probe::Action::Http(pb::HttpAction { port: 80, tls: true, ..Default::default() })),
                ..Default::default()
            }],
            ..Default::default()
        }),
        2 => Call::Exec(pb::Exec { container: name, args: vec!["true".into()], ..Default::default() }),
        3 => Call::WriteVolume(pb::WriteVolume {
            volume: name,
            files: vec![pb::File { path: "a".into(), content: vec![1; 100], mode: 0o644 }],
        }),
        _ => Call::Attach(pb::Attach { container: name, history: true, ..Default::default() }),
    };
    pb::Call { call: Some(call) }
}

#[test]
fn calls_that_were_spoiled_on_the_way_are_calls_or_none() {
    let mut random = Random(3);
    let mut decoded = 0;
    for turn in 0..20_000 {
        let whole = call(turn % 5).encode_to_vec();
        assert_eq!(pb::Call::decode(whole.as_slice()).unwrap(), call(turn % 5));
        let Ok(found) = pb::Call::decode(random.spoil(whole).as_slice()) else { continue };
        decoded += 1;
        assert_eq!(pb::Call::decode(found.encode_to_vec().as_slice()).unwrap(), found);
    }
    assert!((1_000..19_000).contains(&decoded), "{decoded}");
}

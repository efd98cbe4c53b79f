//! Writes the Rust messages of `proto/agent.proto`: `cuboid-codegen PROTO OUTPUT`.
//!
//! A crate of its own, so that building the agent needs neither a protobuf compiler nor these dependencies: the
//! output is committed, and `tools/gen.py --check` fails when it is stale.

use std::{env, fs, path::Path, process::ExitCode};

const HEADER: &str = "//! Messages of proto/agent.proto. Written by tools/gen.py; do not edit.\n\
    #![allow(clippy::all, clippy::pedantic, dead_code, rustdoc::all)]\n\n";

fn generate(proto: &Path, output: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let folder = proto.parent().ok_or("the proto file has no folder")?;
    let descriptors = protox::compile([proto], [folder])?;
    let scratch = output.with_extension("rs.d");
    fs::create_dir_all(&scratch)?;
    let written = prost_build::Config::new()
        .out_dir(&scratch)
        .compile_fds(descriptors)
        .map_err(Into::into)
        .and_then(|()| fs::read_to_string(scratch.join("cuboid.agent.v1.rs")))
        .and_then(|code| fs::write(output, format!("{HEADER}{code}")));
    fs::remove_dir_all(&scratch)?;
    Ok(written?)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [proto, output] = arguments.as_slice() else {
        eprintln!("usage: cuboid-codegen PROTO OUTPUT");
        return ExitCode::from(2);
    };
    match generate(Path::new(proto), Path::new(output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cuboid-codegen: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Generates the wire types and services from `confiture/v1/*.proto`; needs `protoc`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("confiture_v1.bin");
    tonic_prost_build::configure()
        .file_descriptor_set_path(descriptors)
        .compile_protos(
            &[
                "confiture/v1/fleet.proto",
                "confiture/v1/rollout.proto",
                "confiture/v1/agent.proto",
            ],
            &["."],
        )?;
    Ok(())
}

//! Compiles the proto files without `protoc`, and finds the version with its commit.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The messages that carry an API key, and the messages that contain them. They have no derived `Debug`, so that no log line can
/// show an API key. Nearly all of Envoy's messages contain a header.
const CARRY_A_KEY: [&str; 22] = [
    "claviger.v1.VerifyRequest",
    "claviger.v1.VerifyBatchRequest",
    "claviger.v1.VerifyStreamRequest",
    "claviger.v1.IssueKeyResponse",
    "claviger.v1.RotateKeyResponse",
    "claviger.v1.RotateSelfResponse",
    "claviger.v1.FindKeyRequest",
    "claviger.v1.FindKeyRequest.key",
    "claviger.v1.ImportKeysRequest",
    "claviger.v1.ImportEntry",
    "claviger.v1.ImportEntry.secret",
    "claviger.v1.ExplainRequest",
    "claviger.v1.HttpQuestion",
    "claviger.v1.HttpHeader",
    "claviger.v1.ApplyRequest",
    "claviger.v1.ApplyResponse",
    "claviger.v1.DeclaredState",
    "claviger.v1.DeclaredKey",
    "claviger.v1.DeclaredChange",
    "claviger.v1.DeclaredResource",
    "claviger.v1.DeclaredResource.resource",
    ".envoy",
];

/// The codec of all services except `KeyVerify`, whose messages are small, and whose clients may present any text as a key.
const CODEC: &str = "crate::protobuf::BoundedCodec";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rustc-env=CLAVIGER_VERSION={}", version());

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files([
            "claviger/v1/key_verify.proto",
            "claviger/v1/key_admin.proto",
            "claviger/v1/realm_admin.proto",
            "claviger/v1/authority_admin.proto",
            "envoy/service/auth/v3/external_auth.proto",
        ])?;
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    tonic_prost_build::configure()
        .codec_path(CODEC)
        .skip_debug(CARRY_A_KEY)
        // In order, so that a request that is sent again reads the same.
        .btree_map(".")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .include_file("_includes.rs")
        .compile_fds(compiler.file_descriptor_set())?;

    // The servers whose frequent messages are read and written field by field, a second time, with these messages as they are sent.
    let mut servers = compiler.file_descriptor_set();
    servers.file.retain(|file| {
        [
            "claviger/v1/key_verify.proto",
            "envoy/service/auth/v3/external_auth.proto",
        ]
        .contains(&file.name())
    });
    let out = out.join("encoded");
    fs::create_dir_all(&out)?;
    let mut server = tonic_prost_build::configure()
        .out_dir(out)
        .build_client(false)
        .extern_path(".claviger.v1", "crate::pb::claviger::v1")
        .extern_path(".envoy", "crate::pb::envoy");
    for (package, method) in [
        ("claviger.v1", "Verify"),
        ("claviger.v1", "VerifyBatch"),
        ("claviger.v1", "VerifyStream"),
        ("envoy.service.auth.v3", "Check"),
    ] {
        let module = package.replace('.', "::");
        for message in [format!("{method}Request"), format!("{method}Response")] {
            server = server.extern_path(
                format!(".{package}.{message}"),
                format!("crate::protobuf::Encoded<crate::pb::{module}::{message}>"),
            );
        }
    }
    server.compile_fds(servers)?;
    Ok(())
}

/// The version, with the commit if it is known: from packaging, which builds without a repository, or else from git.
///
/// Only a release build asks git. Otherwise each commit of a developer would compile everything again.
fn version() -> String {
    println!("cargo:rerun-if-env-changed=CLAVIGER_COMMIT");
    let packaged = env::var("CLAVIGER_COMMIT").unwrap_or_default();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match packaged.trim() {
        "" | "unknown" if is_release => commit_of_git(),
        "" | "unknown" => None,
        packaged => Some(packaged.to_owned()),
    };
    let version = env!("CARGO_PKG_VERSION");
    match commit.filter(|commit| commit.chars().all(|c| c.is_ascii_alphanumeric())) {
        Some(commit) => format!("{version} ({})", commit.get(..12).unwrap_or(&commit)),
        None => version.to_owned(),
    }
}

/// The commit that is checked out; `None` in a source archive, and without git.
fn commit_of_git() -> Option<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Not a repository that a source archive was unpacked into.
    if !here.join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(here)
            .args(arguments)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // It changes with each commit and checkout.
    let log = here.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    git(&["rev-parse", "HEAD"])
}

# Shortcuts for common tasks. Nothing needs this file: each recipe is one command that you can also type.

# List the recipes
default:
    @just --list

# Check everything that CI checks
check:
    .ci/run

# Run all tests, or those whose name contains NAME
test NAME="":
    tests/run {{NAME}}

# Measure what a Verify costs; takes about ten minutes
bench *ARGS:
    cargo bench {{ if ARGS == "" { "" } else { "-- " + ARGS } }}

# Serve a new or existing authority in ./claviger-data
serve *ARGS:
    cargo run --release -- serve --init {{ARGS}}

# Build the Debian package in target/
deb:
    cargo build --release --locked
    packaging/deb target target/release/claviger

# Write the list of all dependencies (CycloneDX) to claviger.cdx.json; needs cargo-cyclonedx
sbom:
    cargo cyclonedx --format json --target x86_64-unknown-linux-gnu --override-filename claviger.cdx

# Format the code
fmt:
    cargo fmt

# Check the licences and sources of the dependencies; needs cargo-deny
deny:
    cargo deny check bans licenses sources

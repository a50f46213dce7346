# Shortcuts for https://github.com/casey/just. None is needed: each is an ordinary cargo command.

# What there is
default:
    @just --list

# The main job, shown live on this machine
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# All tests, doctests included
test:
    cargo test --workspace

# Formatting, lints, and documentation without a warning
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Formats every crate, also those outside the workspace
fmt:
    cargo fmt
    cargo fmt --manifest-path interop/Cargo.toml
    cargo fmt --manifest-path bench/Cargo.toml
    cargo fmt --manifest-path fuzz/Cargo.toml

# File and function length, layers, purity of the core
tidy:
    cargo test --package strait-core --test tidy

# Every fuzz target for so many seconds; see fuzz/README.md
fuzz *ARGS:
    .ci/fuzz {{ARGS}}

# Which regions of the decoders ordinary tests run
coverage:
    .ci/coverage

# The scenarios of the simulator
sim *ARGS:
    cargo test --package strait-sim {{ARGS}}

# strait with other libp2p stacks; installs what that needs
interop:
    .ci/interop

# strait beside others: see bench/README.md
bench *ARGS:
    cargo run --release --manifest-path bench/Cargo.toml -- {{ARGS}}

# Licences, sources and advisories of the dependencies; needs `cargo install cargo-deny`
deny:
    cargo deny check

# Everything that has to pass before a change is merged
ci:
    .ci/run

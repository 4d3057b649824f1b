# Lists the recipes.
default:
    @just --list

# What CI runs; changes nothing.
verify:
    .ci/run

# Formats, and mends what clippy can mend.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# Everything: unit, property, simulation, end to end.
test:
    cargo nextest run --workspace

# Three sites, real flights, a kill, the proof.
demo:
    cargo demo

# More seeds of the simulation than the tests run.
simulate seeds="5000":
    FREEHOLD_SEEDS={{seeds}} cargo test --release --package freehold-core --test simulation -- --nocapture
    FREEHOLD_SEEDS={{seeds}} cargo test --release --package freehold-core --test sites -- --nocapture

# Licences and advisories of the dependencies.
deny:
    cargo deny check

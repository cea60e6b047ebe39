//! Measurements of the built product, from outside.
//!
//! In: the product's binaries and those of its peers. Out: tables, or JSON, with ratios of what ran side by side. It
//! never uses the product's crates: what it knows of it is its command line, its environment and what it speaks.
//!
//! `pair` measures two sidecars with mutual TLS between them. Run it by `e2e/bench/pair`, which builds, and cleans up
//! whatever happens. `apply` measures how soon requests follow a changed route on a cluster; run it by `e2e/bench/apply`.

use clap::Parser;

mod apply;
mod authority;
mod control;
mod envoy;
mod net;
mod pair;
mod place;
mod process;
mod report;
mod world;
mod wrk;

#[derive(Debug, Parser)]
#[command(about = "Measurements of the built product, from outside")]
enum Cli {
    Pair(pair::Args),
    Apply(apply::Args),
}

fn main() -> anyhow::Result<()> {
    // Only fails if there is one already.
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse() {
        Cli::Pair(args) => pair::run(&args),
        Cli::Apply(args) => apply::run(&args),
    }
}

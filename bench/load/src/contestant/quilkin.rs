//! quilkin: a token before the payload names the endpoint; capture takes it off.

use std::fs;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::rival::Started;
use crate::topology::Topology;
use crate::workload::Workload;

pub(super) const SETTINGS: &str = "0.10.0, built with -C target-cpu=native and its profile lto, jemalloc; io_uring, \
     service.udp.workers=1, admin off; filters capture (a prefix of 4 bytes, removed) and token \
     router, an endpoint for each receiver; no XDP";

const TOKEN_LEN: usize = 4;

pub(super) fn start(
    program: &str,
    topology: &Topology,
    workload: &Workload,
) -> anyhow::Result<Started> {
    let directory = topology.directory()?;
    let endpoints: Vec<_> = workload
        .addresses()
        .zip(0u32..)
        .map(|(address, lease)| {
            let token = BASE64_STANDARD.encode(token(lease));
            json!({ "address": address, "metadata": { "quilkin.dev": { "tokens": [token] } } })
        })
        .collect();
    let settings = json!({
        "version": "v1alpha1",
        "filters": [
            {
                "name": "quilkin.filters.capture.v1alpha1.Capture",
                "config": { "prefix": { "size": TOKEN_LEN, "remove": true } },
            },
            { "name": "quilkin.filters.token_router.v1alpha1.TokenRouter" },
        ],
        "clusters": [{ "endpoints": endpoints }],
    });
    // JSON is YAML.
    let file = directory.path().join("quilkin.yaml");
    fs::write(&file, settings.to_string()).context("writing its settings")?;
    let mut command = topology.command(program);
    command.args(["--quiet", "--admin.enabled=false", "--service.udp", "--service.udp.workers=1"]);
    command.arg(format!("--service.udp.port={}", topology.road().relay.port()));
    command.arg("--provider.fs").arg(format!("--provider.fs.path={}", file.display()));
    let process = topology.host().spawn("quilkin", command)?;
    let prefixes = workload.flows().map(|flow| token(flow.target).to_vec()).collect();
    Ok(Started { process, directory, prefixes, answer_prefix_len: 0 })
}

fn token(lease: u32) -> [u8; TOKEN_LEN] {
    lease.to_be_bytes()
}

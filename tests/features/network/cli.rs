//! The command lines of Kurtosis by which nodes of an enclave are found, stopped and started.
//!
//! No enclave was ever started by those who wrote this: docs/TESTNET.md.

use std::{net::SocketAddr, process::Command};

/// An enclave that runs, and the program that knows it.
#[derive(Clone, Debug)]
pub struct Cli {
    pub program: String,
    pub enclave: String,
}

impl Cli {
    /// Stops a service's container.
    pub fn stop(&self, service: &str) -> Result<(), String> {
        self.run(&["service", "stop", &self.enclave, service]).map(|_| ())
    }

    /// Starts it again, with its volume.
    pub fn start(&self, service: &str) -> Result<(), String> {
        self.run(&["service", "start", &self.enclave, service]).map(|_| ())
    }

    /// Where this machine reaches a service's port. It may be another after each start.
    pub fn port(&self, service: &str, port: &str) -> Result<SocketAddr, String> {
        let told = self.run(&["port", "print", &self.enclave, service, port])?;
        address(&told).ok_or_else(|| format!("port {port} of {service} is at {told:?}"))
    }

    /// Runs the program; what it writes, or how it failed.
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let line = format!("{} {}", self.program, arguments.join(" "));
        let output =
            Command::new(&self.program).args(arguments).output().map_err(|error| format!("{line}: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{line}: {}, {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
        }
    }
}

/// The address in the last line of what `port print` tells, with or without a protocol before it.
fn address(told: &str) -> Option<SocketAddr> {
    let line = told.trim().lines().last()?.trim();
    let (_, rest) = line.split_once("://").unwrap_or(("", line));
    rest.trim_end_matches('/').parse().ok()
}

/// The clients of each pair, execution and consensus, in the order of `network_params.yaml`.
pub fn pairs(parameters: &str) -> Vec<(String, String)> {
    let values = |key: &str| {
        let lines = parameters.lines().filter_map(|line| line.trim_start_matches([' ', '-']).split_once(':'));
        let ours = lines.filter(|(name, _)| *name == key);
        ours.map(|(_, value)| value.trim().to_owned()).collect::<Vec<_>>()
    };
    values("el_type").into_iter().zip(values("cl_type")).collect()
}

/// The names of the services of pair `number`, from 1, as ethereum-package gives them: of the
/// execution node, and of the consensus node.
pub fn services(number: usize, (el, cl): &(String, String)) -> (String, String) {
    (format!("el-{number}-{el}-{cl}"), format!("cl-{number}-{cl}-{el}"))
}

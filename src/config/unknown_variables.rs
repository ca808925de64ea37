//! Variables that look like settings and are none. A mistyped variable is a setting that silently does not hold.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use clap::Command;

use super::environment::{Environment, PREFIX};
use super::setting::settings;
use crate::domain::nearest::nearest;

/// Returns a message for each variable of the environment that nothing reads. `others` are variables that are read elsewhere.
pub(super) fn unknown_variables(
    program: &Command,
    others: &[&str],
    environment: &Environment,
) -> Vec<String> {
    let mut known: BTreeSet<String> = others.iter().map(|name| (*name).to_owned()).collect();
    add_variables(program, &mut known);
    // Without the prefix, which would make all names similar.
    let known: BTreeSet<&str> = known
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX))
        .collect();
    environment
        .of_program()
        .filter(|(name, value)| {
            let value = value.to_str().unwrap_or_default();
            !known.contains(name.as_str()) && !is_of_kubernetes(name, value)
        })
        .map(|(name, _)| match nearest(&name, known.iter().copied()) {
            Some(nearest) => {
                format!("unknown variable {PREFIX}{name}: did you mean {PREFIX}{nearest}?")
            }
            None => format!(
                "unknown variable {PREFIX}{name}: unset it; `claviger serve --help` names the variables"
            ),
        })
        .collect()
}

fn add_variables(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(clap::Arg::get_env);
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    known.extend(settings(command).filter_map(|setting| setting.file_variable()));
    for command in command.get_subcommands() {
        add_variables(command, known);
    }
}

/// Whether Kubernetes sets such a variable, without the prefix, for a Service named `claviger` or `claviger-...`. The form of the
/// value counts too, so that a mistyped setting is still found.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_port = |value: &str| value.parse::<u16>().is_ok();
    let is_address = |value: &str| value.parse::<IpAddr>().is_ok();
    let is_url = |value: &str| {
        let url = value.split_once("://");
        url.is_some_and(|(protocol, address)| {
            is_protocol(protocol) && address.parse::<SocketAddr>().is_ok()
        })
    };
    let name = format!("_{name}");
    if name.ends_with("_SERVICE_HOST") {
        return is_address(value);
    }
    let mut of_service = name.split("_SERVICE_PORT").skip(1);
    if of_service.any(|port_name| port_name.is_empty() || port_name.starts_with('_')) {
        return is_port(value);
    }
    let mut rests = name
        .match_indices("_PORT")
        .map(|(start, port)| &name[start + port.len()..]);
    rests.any(|rest| {
        let parts: Vec<_> = rest.split('_').skip(1).collect();
        match parts.as_slice() {
            [] => rest.is_empty() && is_url(value),
            [port, protocol, what @ ..] if is_port(port) && is_protocol(protocol) => match what {
                [] => is_url(value),
                ["PROTO"] => is_protocol(value),
                ["PORT"] => is_port(value),
                ["ADDR"] => is_address(value),
                _ => false,
            },
            _ => false,
        }
    })
}

fn is_protocol(text: &str) -> bool {
    ["tcp", "udp", "sctp"]
        .iter()
        .any(|protocol| text.eq_ignore_ascii_case(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen red without the look at the value, and with any text as the number of a port.
    #[test]
    fn only_a_value_of_the_right_form_is_of_kubernetes() {
        for (name, right, wrong) in [
            ("SERVICE_HOST", "10.43.0.7", "claviger"),
            ("HTTP_SERVICE_HOST", "fd00::7", "7701"),
            ("SERVICE_PORT", "7700", "10.43.0.7:7700"),
            ("SERVICE_PORT_GRPC", "7700", "65536"),
            ("PORT", "tcp://10.43.0.7:7700", "7700"),
            ("HTTP_PORT", "udp://[fd00::7]:7701", "http://10.43.0.7:7701"),
            ("PORT_7700_TCP", "tcp://10.43.0.7:7700", "tcp"),
            ("PORT_7700_TCP_PROTO", "tcp", "tls"),
            ("PORT_7700_TCP_PORT", "7700", "grpc"),
            ("PORT_7700_SCTP_ADDR", "10.43.0.7", "7700"),
        ] {
            assert!(is_of_kubernetes(name, right), "{name}={right}");
            assert!(!is_of_kubernetes(name, wrong), "{name}={wrong}");
        }
        for name in [
            "PORT_GRPC_TCP",
            "PORT_7700",
            "PORT_7700_HTTP",
            "REPORT",
            "SERVICE_PORTS",
            "",
        ] {
            for value in ["7700", "10.43.0.7", "tcp", "tcp://10.43.0.7:7700"] {
                assert!(!is_of_kubernetes(name, value), "{name}={value}");
            }
        }
    }
}

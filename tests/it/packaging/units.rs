//! The units of systemd.

use std::process::{Command, Output};
use std::time::Duration;

use super::{read, succeeds};
use crate::fixtures::{claviger, installed, outcome};

/// The value of a setting that stands in a unit once.
fn setting(unit: &str, name: &str) -> String {
    let unit = read(unit);
    let mut values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("{name} is set"));
    assert_eq!(values.next(), None, "{name} is set once");
    value.to_owned()
}

fn analyze(args: &[&str]) -> Output {
    let mut command = Command::new(installed("systemd-analyze", &[]));
    let output = outcome(command.args(args));
    assert!(output.status.success(), "{output:?}");
    output
}

/// Seen red with a misspelt setting, and with a program that is not there. The score is 1.2 with systemd 252; without the filter of
/// system calls it is 2.6.
#[test]
fn systemd_accepts_the_units_and_finds_little_exposed() {
    let dir = tempfile::tempdir().unwrap();
    let [service, socket] = ["claviger.service", "claviger.socket"].map(|unit| {
        let text = read(&format!("systemd/{unit}"));
        let program = env!("CARGO_BIN_EXE_claviger");
        let text = text.replace("ExecStart=claviger ", &format!("ExecStart={program} "));
        assert!(text.contains(program) || unit != "claviger.service");
        let path = dir.path().join(unit);
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    });
    let output = analyze(&["verify", "--man=no", &service, &socket]);
    // A setting that it does not know is no error for it.
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(!complaint.contains("claviger"), "{complaint}");
    // In tenths.
    analyze(&["security", "--offline=true", "--threshold=15", &service]);
}

#[test]
fn the_unit_gives_the_server_its_time_and_knows_its_exit_codes() {
    let unit = "systemd/claviger.service";
    assert_eq!(setting(unit, "Type"), "notify");
    assert_eq!(setting(unit, "RestartPreventExitStatus"), "2 78");
    let stop: u64 = setting(unit, "TimeoutStopSec").parse().unwrap();
    let output = claviger(&["serve", "--print-config"]).output().unwrap();
    let settings: toml::Table = toml::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let drain: Duration = ["drain-delay", "drain-timeout"]
        .iter()
        .map(|name| humantime::parse_duration(settings[*name].as_str().unwrap()).unwrap())
        .sum();
    // Two times ten seconds to write and to close.
    assert!(Duration::from_secs(stop) > drain + Duration::from_secs(20));
    assert_eq!(
        setting("systemd/claviger.socket", "FileDescriptorName"),
        "listen"
    );
}

/// Seen red with a misspelt setting in the file.
#[test]
fn the_command_of_the_unit_can_serve_with_the_file_beside_it() {
    let command = setting("systemd/claviger.service", "ExecStart");
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(
        words,
        [
            "claviger",
            "serve",
            "--config",
            "/etc/claviger/claviger.toml"
        ]
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("claviger.toml");
    let text = read("systemd/claviger.toml");
    let state = setting("systemd/claviger.service", "StateDirectory");
    let data_dir = format!("/var/lib/{state}");
    assert!(
        text.contains(&format!("\ndata-dir = \"{data_dir}\"\n")),
        "{text}"
    );
    let text = text.replace(&data_dir, &dir.path().display().to_string());
    std::fs::write(&file, text).unwrap();
    let config = file.display().to_string();
    succeeds(&mut claviger(&["bootstrap", "--config", &config]));
    let checked = succeeds(&mut claviger(&[
        "serve",
        "--config",
        &config,
        "--check-config",
    ]));
    assert_eq!(checked, "the configuration is correct\n");
}

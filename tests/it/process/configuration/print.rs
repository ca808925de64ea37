//! `--print-config`.

use super::{Machine, line};
use crate::fixtures::claviger;

/// The names of the flags that a command's help lists.
fn flags(command: &str) -> Vec<String> {
    let output = claviger(&[command, "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    // What is indented further explains a flag, and may name others.
    help.lines()
        .filter_map(|line| line.strip_prefix("  --"))
        .map(|line| line.split([' ', '=']).next().unwrap().to_owned())
        .collect()
}

/// Seen red with the settings of the log left out.
#[test]
fn every_setting_is_printed_once() {
    let of_clients = flags("events");
    let printed = Machine::new().printed(&[]);
    let not_settings = ["help", "config", "check-config", "print-config"];
    let mut names: Vec<String> = flags("serve");
    names.retain(|name| !of_clients.contains(name) && !not_settings.contains(&name.as_str()));
    assert!(names.len() > 30, "the help names the flags: {names:?}");
    for name in &names {
        line(&printed, name);
    }
    assert_eq!(printed.lines().count(), names.len(), "{printed}");
}

/// Seen red with a value that is written with quotes around it only, and with the path of a file in a comment as it is.
#[test]
fn what_is_printed_gives_the_same_settings_as_a_file() {
    let mut machine = Machine::new();
    let all = [
        "--data-dir=a \"dir\" \\ of\n'odd' # characters, \u{1}\u{7f} żółw",
        "--pepper-file=007",
        "--database-url=postgres://claviger@db.example.com/claviger?sslmode=verify-full",
        "--database-timeout=1min 30s",
        "--argon2-memory=8",
        "--argon2-passes=1",
        "--trust-clock",
        "--init",
        "--listen=[::1]:7700",
        "--tls-cert=a.pem",
        "--tls-key=a.key",
        "--client-ca=ca.pem",
        "--require-client-cert=admin,verify",
        "--require-client-cert=gateway",
        "--insecure-listen",
        "--gateway=nginx",
        "--gateway=caddy",
        "--trusted-hops=1",
        "--no-reflection",
        "--verify-threads=1",
        "--disk-reserve=0",
        "--retain-events=90d",
        "--log=claviger=debug,h2=warn",
        "--log-format=json",
    ];
    for flags in [&all[..], &[]] {
        let first = machine.printed(flags);
        machine.write("printed.toml", &first);
        let second = machine.printed(&["--config", "printed.toml"]);
        let values = |printed: &str| -> Vec<String> {
            let lines = printed.lines();
            lines
                .map(|line| line.rsplit_once("  # ").unwrap().0.to_owned())
                .collect()
        };
        assert_eq!(values(&first), values(&second));
        let file: toml::Table = first.parse().unwrap();
        assert_eq!(file, second.parse().unwrap());
        if !flags.is_empty() {
            assert!(file["require-client-cert"].as_array().unwrap().len() == 3);
            assert_eq!(
                file["data-dir"].as_str().unwrap(),
                &all[0]["--data-dir=".len()..]
            );
        }
        for line in second.lines() {
            assert!(
                line.starts_with("# ") || line.contains("  # printed.toml line "),
                "{line}"
            );
        }
    }
    // Also a name of a file that would end the comment.
    machine.write("a\nlisten = 1", "max-calls = 1");
    machine.set("CLAVIGER_CONFIG", "a\nlisten = 1");
    let odd = machine.printed(&[]);
    assert!(odd.parse::<toml::Table>().is_ok(), "{odd}");
}

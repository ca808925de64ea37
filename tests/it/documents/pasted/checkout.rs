//! A machine for pasting: a network namespace of its own, because the pages name the usual ports. What `cargo run` would build
//! first is the program that is tested.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::documents::root;
use crate::fixtures::{outcome, without_variables};
use crate::gateways::envoy_program;
use crate::process::tool;

/// The command that asks for the key, on a line of its own.
const LOGIN: &str = "claviger login\n";

/// A checkout with nothing in it but what the pages use.
pub(super) struct Checkout {
    dir: tempfile::TempDir,
}

impl Checkout {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("checkout/target/release")).unwrap();
        std::fs::create_dir_all(at("bin")).unwrap();
        std::fs::create_dir_all(at("home")).unwrap();
        let program = env!("CARGO_BIN_EXE_claviger");
        symlink(program, at("checkout/target/release/claviger")).unwrap();
        symlink(root().join("examples"), at("checkout/examples")).unwrap();
        symlink(envoy_program(), at("bin/envoy")).unwrap();
        symlink(tool("grpcurl"), at("bin/grpcurl")).unwrap();
        let cargo = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = \"run --release --\" ] || exit 1\nshift 3\nexec {program} \"$@\"\n"
        );
        // By its path, or it would not find its packages.
        let python = format!("#!/bin/sh\nexec {} \"$@\"\n", tool("python").display());
        for (name, script) in [("bin/cargo", cargo), ("bin/python3", python)] {
            std::fs::write(at(name), script).unwrap();
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(at(name), executable).unwrap();
        }
        Self { dir }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("checkout")
    }

    /// The content of a file in the checkout.
    pub(super) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap()
    }

    /// Pastes blocks into a second terminal while the first one runs the server, and returns what the second one shows.
    pub(super) fn paste(&self, server: &str, blocks: &[String]) -> String {
        let mut second = String::new();
        // On a page that begins with a login, and in each later terminal of this home, the context has the key.
        let logs_in = |block: &String| block.contains(LOGIN);
        let contexts = self.dir.path().join("home/.config/claviger/contexts.toml");
        if !blocks.iter().any(logs_in) && !contexts.exists() {
            second.push_str("export CLAVIGER_KEY=$(cat claviger-data/operator.key)\n");
        }
        let mut ports = BTreeSet::new();
        for block in blocks {
            // A person waits until what was started before listens.
            if block.contains("curl ") {
                for port in &ports {
                    second.push_str(&until_open(*port));
                }
            }
            // A refusal that the page shows is an exit code.
            if block.contains("RevokeKey") {
                second.push_str("set +e\n");
            }
            // The page says so for a server that does not run on a terminal.
            let login = format!("{} < claviger-data/operator.key\n", LOGIN.trim_end());
            second.push_str(&block.replace(LOGIN, &login));
            if block.contains("8081 ") || block.contains("upstream.py") {
                ports.insert(8081);
            }
            if block.contains("caddy run")
                || block.contains("nginx -e")
                || block.contains("envoy -c")
            {
                ports.insert(8080);
            }
        }
        std::fs::write(self.dir.path().join("first"), server).unwrap();
        std::fs::write(self.dir.path().join("second"), second).unwrap();
        let machine = "ip link set lo up && { bash ../first >../first.log 2>&1 & }\n\
             until { curl -sf http://127.0.0.1:7701/readyz || curl -sfk https://127.0.0.1:7701/readyz; } >/dev/null; do sleep 0.02; done\n\
             bash -e ../second 2>&1\n";
        let mut unshare = Command::new("unshare");
        if !rustix::process::getuid().is_root() {
            unshare.args(["--user", "--map-current-user", "--keep-caps"]);
        }
        unshare
            .args(["--net", "--pid", "--fork", "--kill-child"])
            .args(["bash", "-c", machine])
            .current_dir(self.path())
            .env("HOME", self.dir.path().join("home"))
            .env("PATH", self.search_path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CLAVIGER_") {
                unshare.env_remove(name);
            }
        }
        let output = outcome(without_variables(&mut unshare));
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        let log = std::fs::read_to_string(self.dir.path().join("first.log")).unwrap_or_default();
        assert!(
            output.status.success(),
            "{shown}\n{complaint}\nthe server:\n{log}"
        );
        shown
    }

    fn search_path(&self) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}:/usr/sbin", self.dir.path().join("bin").display())
    }

    /// What lies in the checkout.
    pub(super) fn files(&self) -> BTreeSet<String> {
        let entries = self.path().read_dir().unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }
}

fn until_open(port: u16) -> String {
    format!("until (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.02; done\n")
}

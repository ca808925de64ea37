//! The Debian package, and the pages about installing, upgrading and removing it, on a copy of this machine: its file system below
//! a layer that takes all changes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{packaging, succeeds};
use crate::documents::block_of_page;

fn build(dir: &Path) -> PathBuf {
    let program = env!("CARGO_BIN_EXE_claviger");
    let mut deb = Command::new(packaging("deb"));
    // The program of a test is large.
    deb.env("DPKG_DEB_COMPRESSOR_TYPE", "none")
        .arg(dir)
        .arg(program);
    PathBuf::from(succeeds(&mut deb).trim())
}

#[test]
fn the_package_has_the_program_its_units_pages_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let package = build(dir.path());
    let name = package.file_name().unwrap().to_str().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(name.starts_with(&format!("claviger_{version}_")), "{name}");
    let listed = succeeds(Command::new("dpkg-deb").arg("--contents").arg(&package));
    for (path, mode) in [
        ("usr/bin/claviger", "-rwxr-xr-x"),
        ("usr/lib/systemd/system/claviger.service", "-rw-r--r--"),
        ("usr/lib/systemd/system/claviger.socket", "-rw-r--r--"),
        ("etc/claviger/claviger.toml", "-rw-r--r--"),
        ("usr/share/man/man1/claviger.1.gz", "-rw-r--r--"),
        ("usr/share/man/man1/claviger-keys-issue.1.gz", "-rw-r--r--"),
        (
            "usr/share/bash-completion/completions/claviger",
            "-rw-r--r--",
        ),
        ("usr/share/zsh/vendor-completions/_claviger", "-rw-r--r--"),
        (
            "usr/share/fish/vendor_completions.d/claviger.fish",
            "-rw-r--r--",
        ),
        ("usr/share/doc/claviger/copyright", "-rw-r--r--"),
        ("usr/share/doc/claviger/changelog.gz", "-rw-r--r--"),
    ] {
        let line = listed
            .lines()
            .find(|line| line.ends_with(&format!(" ./{path}")));
        let line = line.unwrap_or_else(|| panic!("{path}\n{listed}"));
        assert!(line.starts_with(&format!("{mode} root/root ")), "{line}");
    }
    let control = succeeds(Command::new("dpkg-deb").arg("--field").arg(&package));
    assert!(
        control.contains(&format!("\nVersion: {version}\n")),
        "{control}"
    );
    assert!(control.contains("\nDepends: libc6 (>= 2."), "{control}");
}

/// The parts of systemd that the pages use: it starts the command of the unit as the user of the unit, until it is ready.
const SYSTEMCTL: &str = r#"#!/bin/bash
unit=/usr/lib/systemd/system/claviger.service
start() {
    user=$(sed -n 's/^User=//p' $unit)
    setpriv --reuid "$user" --regid "$user" --clear-groups -- $(sed -n 's/^ExecStart=//p' $unit) 2>>/run/log &
    echo $! >/run/pid
    for _ in {1..200}; do
        if claviger healthcheck >/dev/null; then return; fi
        sleep 0.05
    done
    cat /run/log >&2
    exit 1
}
stop() {
    [ -e /run/pid ] || return 0
    kill "$(cat /run/pid)"
    while kill -0 "$(cat /run/pid)" 2>/dev/null; do sleep 0.05; done
    rm /run/pid
}
echo "systemctl $*" >>/run/asked
case "$*" in
    "enable --now claviger" | "start claviger") start ;;
    "stop claviger" | "disable --now claviger" | "disable --now claviger.socket claviger.service") stop ;;
    daemon-reload) ;;
    *) exit 9 ;;
esac
"#;

/// Only another user changes something: the test is root already.
const SUDO: &str = r#"#!/bin/bash
if [ "$1" = -u ]; then
    exec setpriv --reuid "$2" --regid "$2" --clear-groups -- "${@:3}"
fi
exec "$@"
"#;

/// Enters the copy, whose parts are in the directory, and runs what is in it.
const MACHINE: &str = "mount -t tmpfs tmpfs $0 && mkdir $0/changes $0/work $0/root &&
mount -t overlay overlay -o lowerdir=/,upperdir=$0/changes,workdir=$0/work $0/root &&
mount --rbind /proc $0/root/proc && mount --rbind /dev $0/root/dev && mount -t tmpfs tmpfs $0/root/run &&
mkdir -p $0/root/run/systemd/system && cp -r $1/. $0/root/root/ &&
install $1/systemctl $1/sudo $0/root/usr/local/bin/ && echo no-triggers >$0/root/etc/dpkg/dpkg.cfg.d/test && ip link set lo up &&
exec chroot $0/root bash -ec 'cd /root; . ./steps'";

/// A step that fails if the condition is not true, which `-e` would not see.
fn check(condition: &str) -> String {
    format!("if ! {{ {condition}; }}; then echo \"it is not so: {condition}\" >&2; exit 1; fi")
}

/// Seen red with a unit, a configuration file or a user that the package does not have, with a purge that deletes the data, and with
/// a page that names another file.
#[test]
fn the_pages_lead_from_an_empty_machine_to_an_upgrade_and_back() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: the package is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [files, machine] = ["files", "machine"].map(|name| dir.path().join(name));
    std::fs::create_dir(&files).unwrap();
    std::fs::create_dir(&machine).unwrap();
    build(&files);
    // An authority that an earlier version has made.
    let store = packaging("../tests/fixtures/stores/0.1.0-before-release/sqlite");
    for name in ["claviger.db", "pepper.toml"] {
        std::fs::copy(store.join(name), files.join(name)).unwrap();
    }
    std::fs::write(files.join("systemctl"), SYSTEMCTL).unwrap();
    std::fs::write(files.join("sudo"), SUDO).unwrap();
    let install = "docs/install.md";
    let package = block_of_page(install, "## Debian package", 0);
    let (build, package) = package.split_once('\n').unwrap();
    assert_eq!(build, "packaging/deb . target/release/claviger");
    let steps = [
        // The context of `claviger login` is there.
        "export HOME=/root".to_owned(),
        check("test ! -e /usr/bin/claviger && ! getent passwd claviger"),
        package.to_owned(),
        check("! grep -q 'start\\|now' /run/asked"),
        "echo 'drain-delay = \"0s\"' >>/etc/claviger/claviger.toml".to_owned(),
        block_of_page(install, "## Create the authority", 0),
        block_of_page(install, "## Copy the pepper", 0),
        block_of_page(install, "## Run it as a service", 0),
        block_of_page(install, "## Check it", 0),
        "claviger realm put demo --prefix demo --environment production=live --scope read"
            .to_owned(),
        // The same machine, with what an earlier version has left on it.
        "systemctl stop claviger; rm /var/lib/claviger/*".to_owned(),
        "install -o claviger -g claviger -m 0600 claviger.db pepper.toml /var/lib/claviger/"
            .to_owned(),
        block_of_page("docs/upgrade.md", "## The embedded database", 0),
        check("grep -q drain-delay /etc/claviger/claviger.toml"),
        block_of_page("docs/uninstall.md", "## Remove", 0),
        check("test ! -e /usr/bin/claviger && test ! -e /etc/claviger && test ! -e /run/pid"),
        check("test -e /var/lib/claviger/claviger.db"),
        block_of_page("docs/uninstall.md", "## Delete the data", 0),
        check("! getent passwd claviger && test ! -e /var/lib/claviger"),
        "echo the end".to_owned(),
    ];
    std::fs::write(files.join("steps"), steps.join("\n")).unwrap();
    let mut unshare = Command::new("unshare");
    unshare
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            MACHINE,
        ])
        .args([machine, files])
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
    let shown = succeeds(&mut unshare);
    for text in [
        "\nhealthy: http://127.0.0.1:7700 is SERVING\n",
        "claviger  claviger",
        "Migrated the schema from step ",
        "\nthe end\n",
    ] {
        assert!(shown.contains(text), "{text}\n{shown}");
    }
}

//! The container image: its root file system, run as its Dockerfile says. There is no container here, but the same system calls
//! make one: another root, read-only, and the user 65532.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use claviger::pb::claviger::v1::Verdict;

use super::{packaging, read, succeeds};
use crate::fixtures::{Api, Program, claviger, eventually, outcome};
use crate::process::tool;

/// The user of the image.
const USER: u32 = 65_532;

/// The last stage of the Dockerfile: each instruction with its text, without line breaks.
struct Image(Vec<(String, String)>);

impl Image {
    fn new() -> Self {
        let dockerfile = read("Dockerfile").replace("\\\n", " ");
        let (_, stage) = dockerfile.split_once("FROM scratch\n").unwrap();
        let lines = stage
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let instructions = lines.map(|line| {
            let (name, text) = line.split_once(' ').unwrap();
            (name.to_owned(), text.trim().to_owned())
        });
        Self(instructions.collect())
    }

    /// The text of an instruction that stands there once.
    fn instruction(&self, name: &str) -> &str {
        let mut found = self.0.iter().filter(|(found, _)| found == name);
        let (_, text) = found.next().unwrap_or_else(|| panic!("{name}"));
        assert!(found.next().is_none(), "{name} stands there once");
        text
    }

    /// The words of an instruction that is a command, or ends with one.
    fn command(&self, name: &str) -> Vec<String> {
        let text = self.instruction(name);
        let words = &text[text.find('[').unwrap()..];
        serde_json::from_str(words).unwrap()
    }

    fn variables(&self) -> BTreeMap<&str, &str> {
        let words = self.instruction("ENV").split_whitespace();
        words.map(|word| word.split_once('=').unwrap()).collect()
    }
}

/// The root file system, and a volume for its state.
struct Container {
    image: Image,
    dir: tempfile::TempDir,
}

impl Container {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let program = env!("CARGO_BIN_EXE_claviger");
        succeeds(Command::new(packaging("rootfs")).arg(&root).arg(program));
        Self {
            image: Image::new(),
            dir,
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn volume(&self) -> PathBuf {
        self.dir.path().join("volume")
    }

    /// A volume as it is at first: with the owner and the mode of the directory in the image.
    fn make_volume(&self) {
        let state = self.root().join("var/lib/claviger");
        std::fs::create_dir(self.volume()).unwrap();
        let found = state.metadata().unwrap();
        std::fs::set_permissions(self.volume(), found.permissions()).unwrap();
        std::os::unix::fs::chown(self.volume(), Some(found.uid()), Some(found.gid())).unwrap();
    }

    /// A command in the container, with its variables and these. It stays the same process.
    fn run(&self, words: &[String], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new("unshare");
        let is_root = rustix::process::geteuid().is_root();
        let enter = if is_root {
            command.arg("--mount");
            format!("chroot --userspec={USER}:{USER}")
        } else {
            // There the only user is this one.
            let user = [format!("--map-user={USER}"), format!("--map-group={USER}")];
            command
                .args(["--user", "--keep-caps", "--mount"])
                .args(user);
            "chroot".to_owned()
        };
        let mount = format!(
            "mount --bind $0 $0 && mount --bind $1 $0/var/lib/claviger && mkdir -p $0/proc && mount --rbind /proc $0/proc && \
             mount -o remount,bind,ro $0 && shift && exec {enter} $0 \"$@\""
        );
        command
            .args(["sh", "-c", &mount])
            .args([self.root(), self.volume()])
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.image.variables())
            .envs(variables.iter().copied());
        command
    }

    /// The variables that let it serve beside other tests, and quickly.
    fn serving() -> [(&'static str, &'static str); 6] {
        [
            ("CLAVIGER_LISTEN", "127.0.0.1:0"),
            ("CLAVIGER_HTTP_LISTEN", "127.0.0.1:0"),
            ("CLAVIGER_INIT", "true"),
            ("CLAVIGER_DRAIN_DELAY", "2s"),
            ("CLAVIGER_ARGON2_MEMORY", "8"),
            ("CLAVIGER_ARGON2_PASSES", "1"),
        ]
    }
}

fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            let path = path.strip_prefix(root).unwrap();
            found.insert(format!("/{}", path.display()));
        }
    }
    found
}

/// Seen red with a shell in the root file system, and without the loader.
#[test]
fn the_root_file_system_has_what_the_program_needs_and_nothing_else() {
    let container = Container::new();
    let found = files(&container.root());
    let libraries = succeeds(Command::new("ldd").arg(env!("CARGO_BIN_EXE_claviger")));
    let mut expected: BTreeSet<String> = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect();
    assert!(expected.len() > 2, "{libraries}");
    expected.extend(
        [
            "/etc/group",
            "/etc/nsswitch.conf",
            "/etc/passwd",
            "/etc/ssl/certs/ca-certificates.crt",
            "/usr/bin/claviger",
            "/var/lib/claviger",
        ]
        .map(str::to_owned),
    );
    let folders: Vec<_> = expected
        .iter()
        .flat_map(|path| Path::new(path).ancestors().skip(1))
        .map(|path| path.display().to_string())
        .filter(|path| path != "/")
        .collect();
    expected.extend(folders);
    assert_eq!(found, expected);
    let state = container.root().join("var/lib/claviger");
    let state = state.metadata().unwrap();
    assert_eq!(state.permissions().mode() & 0o777, 0o700);
    if rustix::process::geteuid().is_root() {
        assert_eq!((state.uid(), state.gid()), (USER, USER));
    }
}

/// Seen red with a root that can be written, and with a Dockerfile that names another user, program or directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_serves_as_its_user_on_a_read_only_root_and_drains() {
    let container = Container::new();
    container.make_volume();
    let image = &container.image;
    assert_eq!(image.instruction("USER"), format!("{USER}:{USER}"));
    assert_eq!(image.instruction("VOLUME"), "/var/lib/claviger");
    let words = [image.command("ENTRYPOINT"), image.command("CMD")].concat();

    // As it is, it would serve plain text to other machines.
    let checked = [words.clone(), vec!["--check-config".to_owned()]].concat();
    let refused = outcome(&mut container.run(&checked, &[]));
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(78), "{complaint}");
    assert!(complaint.contains("--insecure-listen"), "{complaint}");
    let insecure = [("CLAVIGER_INSECURE_LISTEN", "true")];
    succeeds(&mut container.run(&checked, &insecure));

    let mut command = container.run(&words, &Container::serving());
    let mut program = Program::start(&mut command, container.volume());
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let has = |name: &str, value: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(
            line.split_whitespace().skip(1).all(|id| id == value),
            "{line}"
        );
    };
    if rustix::process::geteuid().is_root() {
        has("Uid:", &USER.to_string());
        has("Gid:", &USER.to_string());
        has("CapEff:", "0000000000000000");
        let written = std::fs::write(program.own_path(Path::new("/usr/bin/sh")), "");
        assert_eq!(
            written.unwrap_err().kind(),
            std::io::ErrorKind::ReadOnlyFilesystem
        );
    } else {
        eprintln!(
            "not root: the image runs as the user of the test, and its root was not written to"
        );
    }

    let mut api = program.api();
    api.make_demo().await;
    let key = api.issue().await.plain_key;
    assert_eq!(api.verdict(&key).await, Verdict::Allowed);

    // As `docker exec` and the health check of the image run it.
    let endpoint = [("CLAVIGER_ENDPOINT", &*program.address)];
    let mut health = image.command("HEALTHCHECK");
    assert_eq!(health.remove(0), words[0]);
    let in_container = |arguments: &[String]| {
        let line = [&[words[0].clone()], arguments].concat();
        outcome(&mut container.run(&line, &endpoint))
    };
    assert_eq!(in_container(&health).status.code(), Some(0));
    replace_operator_key(&program, &in_container).await;

    let signal = image.instruction("STOPSIGNAL");
    program.signal(signal.strip_prefix("SIG").unwrap());
    eventually("the health check fails", async || {
        (in_container(&health).status.code() == Some(1)).then_some(())
    })
    .await;
    assert!(program.wait().success());
}

/// What `docs/install.md` says for Kubernetes, where no other program is in the container.
async fn replace_operator_key(
    program: &Program,
    in_container: &impl Fn(&[String]) -> std::process::Output,
) {
    let page = std::fs::read_to_string(packaging("../docs/install.md")).unwrap();
    let page = page.replace("\\\n", " ");
    let lines: Vec<Vec<String>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("kubectl exec claviger-0 -- claviger "))
        .map(|line| {
            let command = line.split(" > ").next().unwrap();
            let words = command.split_whitespace();
            words
                .map(|word| word.trim_matches('"').to_owned())
                .collect()
        })
        .collect();
    let [issue, revoke] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    let issued = in_container(issue);
    assert!(issued.status.success(), "{issued:?}");
    let operator = String::from_utf8(issued.stdout).unwrap();
    let revoked = in_container(revoke);
    assert!(revoked.status.success(), "{revoked:?}");
    let mut own = Api::new(&program.address, operator.trim());
    own.realms
        .list_realms(claviger::pb::claviger::v1::ListRealmsRequest::default())
        .await
        .unwrap();
    let left = claviger(&["realm", "list", "--endpoint", &program.address])
        .env("CLAVIGER_KEY", program.operator())
        .output()
        .unwrap();
    assert_ne!(
        left.status.code(),
        Some(0),
        "the key in the volume is revoked"
    );
}

#[test]
fn the_dockerfile_has_no_lint_and_builds_as_the_checkout_does() {
    succeeds(Command::new(tool("hadolint")).arg(packaging("Dockerfile")));
    let toolchain = std::fs::read_to_string(packaging("../rust-toolchain.toml")).unwrap();
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = "));
    let channel = channel.unwrap().trim_matches('"');
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-")));
    assert!(dockerfile.contains(&format!("RUSTUP_TOOLCHAIN={channel}\n")));
    // Both halves of the image come from the script that the tests above run.
    assert!(dockerfile.contains("packaging/rootfs /rootfs target/release/claviger"));
    assert!(dockerfile.contains("COPY --from=build /rootfs /\n"));
}

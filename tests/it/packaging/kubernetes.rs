//! The manifests for Kubernetes.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{packaging, succeeds};
use crate::fixtures::claviger;
use crate::process::tool;

const MANIFESTS: [&str; 2] = ["embedded.yaml", "postgresql.yaml"];

/// The objects of a manifest.
fn objects(manifest: &str) -> Vec<Value> {
    let script =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let mut python = Command::new(tool("python"));
    let path = packaging("kubernetes").join(manifest);
    let printed = succeeds(python.args(["-c", script]).arg(path));
    serde_json::from_str(&printed).unwrap()
}

fn of_kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    let found = objects.iter().filter(|object| object["kind"] == kind);
    found.collect()
}

/// The `StatefulSet` or the Deployment.
fn workload(objects: &[Value]) -> &Value {
    let mut found = objects
        .iter()
        .filter(|object| object["spec"]["template"].is_object());
    found.next().expect("one has pods")
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

/// Seen red with a misspelt field. 1.27 is the first version with probes of gRPC that are no preview.
#[test]
fn kubernetes_accepts_the_manifests() {
    for version in ["1.27.1", "1.37.0"] {
        for manifest in MANIFESTS {
            succeeds(
                Command::new(tool("kubernetes-validate"))
                    .args(["--strict", "--kubernetes-version", version])
                    .arg(packaging("kubernetes").join(manifest)),
            );
        }
    }
}

/// Seen red with a misspelt variable.
#[test]
fn the_server_accepts_the_variables_of_each_manifest_and_has_time_to_drain() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    for manifest in MANIFESTS {
        let objects = objects(manifest);
        let workload = workload(&objects);
        let mut command = claviger(&["serve", "--init", "--check-config"]);
        // Those of the image.
        command
            .env("CLAVIGER_DATA_DIR", &state)
            .env("CLAVIGER_LISTEN", "0.0.0.0:7700")
            .env("CLAVIGER_HTTP_LISTEN", "0.0.0.0:7701");
        let mut delay = Duration::from_secs(5);
        for variable in container(workload)["env"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            let value = variable["value"].as_str().unwrap_or("claviger-0");
            let value = match value.strip_prefix("/run/secrets/claviger/") {
                Some(file) => {
                    let path = dir.path().join(file);
                    std::fs::write(&path, "postgres://claviger:secret@db.example.com/claviger")
                        .unwrap();
                    path.display().to_string()
                }
                None => value.to_owned(),
            };
            if name == "CLAVIGER_DRAIN_DELAY" {
                delay = humantime::parse_duration(&value).unwrap();
            }
            // `--init` may make it.
            if name == "CLAVIGER_PEPPER_FILE" {
                std::fs::remove_file(&value).unwrap();
            }
            command.env(name, value);
        }
        assert_eq!(
            succeeds_as_it_is(&mut command),
            "the configuration is correct\n"
        );
        let pod = &workload["spec"]["template"]["spec"];
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let drain = delay + Duration::from_secs(20 + 20);
        assert!(Duration::from_secs(grace) > drain, "{manifest}");
    }
}

/// Like `succeeds`, with the variables that are set.
fn succeeds_as_it_is(command: &mut Command) -> String {
    let output = crate::fixtures::outcome(command);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_pods_have_no_privileges_and_their_probes_ask_the_right_questions() {
    for manifest in MANIFESTS {
        let objects = objects(manifest);
        let workload = workload(&objects);
        let pod = &workload["spec"]["template"]["spec"]["securityContext"];
        assert_eq!(pod["runAsNonRoot"], true);
        assert_eq!(pod["runAsUser"], 65_532);
        let container = container(workload);
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"]["drop"][0], "ALL");
        assert_eq!(container["readinessProbe"]["grpc"]["port"], 7700);
        // NOT_SERVING is no reason for a restart.
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
        assert!(container["livenessProbe"]["grpc"].is_null());
        let ports = container["ports"].as_array().unwrap();
        for service in of_kind(&objects, "Service") {
            for port in service["spec"]["ports"].as_array().unwrap() {
                assert!(
                    ports.iter().any(|own| own["name"] == port["targetPort"]),
                    "{port}"
                );
            }
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            assert_eq!(&service["spec"]["selector"], labels);
        }
    }
    let embedded = objects("embedded.yaml");
    assert_eq!(workload(&embedded)["kind"], "StatefulSet");
    assert_eq!(workload(&embedded)["spec"]["replicas"], 1);
    let several = objects("postgresql.yaml");
    assert_eq!(of_kind(&several, "PodDisruptionBudget").len(), 1);
    let headless = &of_kind(&several, "Service")[0]["spec"]["clusterIP"];
    assert_eq!(headless, "None");
}

//! An independent client, in another language, that learns the schema by reflection alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixtures::{Engine, Program, TestStore, on_both_engines};

on_both_engines! {
    async fn a_python_client_that_knows_the_schema_by_reflection_alone_does_everything(engine: Engine) {
        let test_store = TestStore::on(engine);
        let program = Program::serve(&test_store, &[]);
        run_python_client(&program, &[]);
    }
}

/// Runs all checks of the client, with more variables in its environment.
pub(crate) fn run_python_client(program: &Program, variables: &[(&str, &str)]) {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py");
    let output = Command::new(python())
        .arg("-B")
        .arg(&client)
        .env("CLAVIGER_ENDPOINT", &program.address)
        .env("CLAVIGER_KEY", program.operator())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("checks passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{}", said.lines().last().unwrap_or_default());
}

/// The interpreter that `tests/run` prepares.
fn python() -> PathBuf {
    let python = std::env::var_os("CLAVIGER_TEST_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python"),
        PathBuf::from,
    );
    assert!(
        python.exists(),
        "{} is not there. `tests/run` makes it, as would:\n\
         python3 -m venv target/python && target/python/bin/pip install -r tests/python/requirements.txt",
        python.display()
    );
    python
}

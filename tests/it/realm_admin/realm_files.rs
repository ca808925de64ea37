//! Realm files, as `claviger realm` reads and writes them.

use crate::fixtures::{Engine, Program, Shell, TestStore};

#[test]
fn a_realm_file_that_was_got_can_be_put_again() {
    let test_store = TestStore::on(Engine::Sqlite);
    let program = Program::serve(&test_store, &[]);
    let operator = program.operator();
    let shell = Shell { program, operator };
    let put = "realm put demo --prefix demo --environment production=live --scope read --scope write=read \
               --unscoped-keys full-access --max-cache 5s --admin-scope write";
    let first = shell.json(put, "", 0)["realm"].clone();
    let file = shell.says("realm get demo --toml", "", 0);
    assert!(
        file.contains("prefix = \"demo\"") && !file.contains("revision"),
        "{file}"
    );
    let again = shell.json("realm put --file -", &file, 0);
    assert_eq!(
        again["realm"], first,
        "nothing changed, not even the revision"
    );
    let edited = file.replace("max_cache = \"5s\"", "max_cache = \"7s\"");
    assert_eq!(
        shell.json("realm put --file -", &edited, 0)["realm"]["max_cache"],
        "7s"
    );
    let complaint = shell.says(
        "realm put --file -",
        &format!("{file}\nno_such_field = 1\n"),
        2,
    );
    assert!(complaint.contains("no_such_field"), "{complaint}");
}

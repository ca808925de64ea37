//! The connection to PostgreSQL: its encryption, the certificate of the database, and the file with its password.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::certificates::Certificates;
use crate::fixtures::{Cluster, DATABASE_PASSWORD, Database, claviger, outcome};

/// A database behind TLS, whose password is in a file.
struct Guarded {
    database: Database,
    certificates: Certificates,
    port: u16,
}

impl Guarded {
    fn start() -> Self {
        let database = Database::new_in(Arc::new(Cluster::start()));
        // The server asks for the password only at connections that are encrypted, and refuses all others.
        let rules = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
        let certificates = Certificates::new();
        certificates.issuer("other");
        let file = database.cluster.data().join("pg_hba.conf");
        fs::write(file, rules.to_owned() + "local all all scram-sha-256\n").unwrap();
        let (certificate, key) = (
            certificates.path("server.pem"),
            certificates.path("server.key"),
        );
        let address = database.cluster.serve_tls(&certificate, &key);
        Self {
            database,
            certificates,
            port: address.port(),
        }
    }

    /// The exit code of `claviger migrate` at this host, with these parameters in the URL and this line in the file with passwords,
    /// and what it said.
    fn migrate(&self, host: &str, parameters: &str, password: &str) -> (Option<i32>, String) {
        let name = &self.database.name;
        let url = format!(
            "postgres://postgres@{host}:{}/{name}?{parameters}",
            self.port
        );
        let file = self.certificates.path("pgpass");
        fs::write(
            &file,
            format!("*:{}:{name}:postgres:{password}\n", self.port),
        )
        .unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let mut command = claviger(&["migrate", "--database-url", &url]);
        command.env("PGPASSFILE", file).env_remove("PGPASSWORD");
        let output = outcome(&mut command);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains(DATABASE_PASSWORD), "{said}");
        (output.status.code(), said)
    }
}

/// Seen red with the mode `require` from `DatabaseUrl::options`, whatever the URL says.
#[test]
fn only_the_named_certificate_and_the_password_of_the_file_open_the_database() {
    let guarded = Guarded::start();
    let ca = |name: &str| {
        let file = guarded.certificates.path(&format!("{name}.pem"));
        format!("sslrootcert={file}")
    };
    let (good, other) = (ca("ca"), ca("other"));
    let full = |ca: &str| format!("sslmode=verify-full&{ca}");
    let (code, said) = guarded.migrate("127.0.0.1", &full(&good), DATABASE_PASSWORD);
    assert_eq!(code, Some(0), "{said}");
    for (host, parameters, password, why) in [
        ("127.0.0.1", full(&other), DATABASE_PASSWORD, "certificate"),
        // The certificate names an address, and no host.
        ("localhost", full(&good), DATABASE_PASSWORD, "certificate"),
        (
            "127.0.0.1",
            format!("sslmode=verify-ca&{other}"),
            DATABASE_PASSWORD,
            "certificate",
        ),
        (
            "127.0.0.1",
            "sslmode=disable".to_owned(),
            DATABASE_PASSWORD,
            "pg_hba.conf",
        ),
        ("127.0.0.1", full(&good), "another", "password"),
    ] {
        let (code, said) = guarded.migrate(host, &parameters, password);
        assert_eq!(code, Some(1), "{host} {parameters}: {said}");
        assert!(said.contains(why), "{host} {parameters}: {said}");
    }
    let (code, said) = guarded.migrate(
        "localhost",
        &format!("sslmode=verify-ca&{good}"),
        DATABASE_PASSWORD,
    );
    assert_eq!(code, Some(0), "{said}");
}

//! Certificates for tests, made with the command of `OpenSSL`.

use std::process::Command;

use tempfile::TempDir;

/// A directory of certificates and keys, `NAME.pem` and `NAME.key`: the issuer `ca`, and `server`, which names 127.0.0.1.
pub(super) struct Certificates(TempDir);

impl Certificates {
    pub(super) fn new() -> Self {
        let certificates = Self(tempfile::tempdir().unwrap());
        certificates.issuer("ca");
        certificates.issue("server", "ca", "IP:127.0.0.1");
        certificates
    }

    /// A path in the directory.
    pub(super) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// The flags of a server with the certificate `server`.
    pub(super) fn flags(&self) -> [String; 4] {
        ["--tls-cert", "server.pem", "--tls-key", "server.key"].map(|word| {
            if word.starts_with("--") {
                word.to_owned()
            } else {
                self.path(word)
            }
        })
    }

    /// A self-signed certificate that may issue others.
    pub(super) fn issuer(&self, name: &str) {
        self.new_key(
            name,
            &["-subj", &format!("/CN={name}"), "-days", "30", "-x509"],
        );
    }

    /// A certificate for a host or a client.
    pub(super) fn issue(&self, name: &str, issuer: &str, alternative_name: &str) {
        self.issue_for_days(name, issuer, alternative_name, "30");
    }

    pub(super) fn issue_for_days(
        &self,
        name: &str,
        issuer: &str,
        alternative_name: &str,
        days: &str,
    ) {
        let [ca, key] = [format!("{issuer}.pem"), format!("{issuer}.key")];
        self.new_key(
            name,
            &[
                "-x509",
                "-CA",
                &ca,
                "-CAkey",
                &key,
                "-days",
                days,
                "-subj",
                &format!("/CN={name}"),
                "-addext",
                &format!("subjectAltName={alternative_name}"),
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ],
        );
    }

    /// A certificate of the issuer `ca` for 127.0.0.1 that was valid until yesterday.
    pub(super) fn issue_expired(&self, name: &str) {
        self.issue_expired_by(name, "ca");
    }

    pub(super) fn issue_expired_by(&self, name: &str, issuer: &str) {
        self.new_key(name, &["-subj", "/CN=expired", "-out", "expired.csr"]);
        let [out, ca, key] = [
            format!("{name}.pem"),
            format!("{issuer}.pem"),
            format!("{issuer}.key"),
        ];
        std::fs::write(self.path("names"), "subjectAltName=IP:127.0.0.1").unwrap();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "expired.csr",
            "-CA",
            &ca,
            "-CAkey",
            &key,
            "-days",
            "-1",
            "-extfile",
            "names",
            "-out",
            &out,
        ]);
    }

    /// A certificate of the issuer `ca` that is valid from 2099 on.
    pub(super) fn issue_future(&self, name: &str) {
        self.new_key(name, &["-subj", "/CN=future", "-out", "future.csr"]);
        let config = "[ca]\ndefault_ca = own\n[own]\ndatabase = issued\nnew_certs_dir = .\ndefault_md = sha256\npolicy = any\n\
                      rand_serial = yes\n[any]\ncommonName = supplied\n";
        std::fs::write(self.path("ca.cnf"), config).unwrap();
        std::fs::write(self.path("issued"), "").unwrap();
        std::fs::write(self.path("names"), "subjectAltName=IP:127.0.0.1").unwrap();
        let line = "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in future.csr \
                    -extfile names -startdate 20990101000000Z -enddate 21000101000000Z -out";
        let out = format!("{name}.pem");
        let line: Vec<_> = line.split_whitespace().chain([out.as_str()]).collect();
        self.openssl(&line);
    }

    /// A certificate for 127.0.0.1 that is its own issuer.
    pub(super) fn self_sign(&self, name: &str, constraint: &str) {
        self.new_key(
            name,
            &[
                "-x509",
                "-days",
                "30",
                "-subj",
                "/CN=alone",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                &format!("basicConstraints=critical,{constraint}"),
            ],
        );
    }

    fn new_key(&self, name: &str, flags: &[&str]) {
        let [out, key] = [format!("{name}.pem"), format!("{name}.key")];
        let mut line = vec![
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &out,
        ];
        line.extend(flags);
        self.openssl(&line);
    }

    /// Runs the command in the directory.
    pub(super) fn openssl(&self, line: &[&str]) {
        let output = Command::new("openssl")
            .args(line)
            .current_dir(self.0.path())
            .output()
            .expect("openssl is installed; `tests/run` does that");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line:?}: {complaint}");
    }

    /// Puts the certificate and the key of this name in the place of others.
    pub(super) fn replace(&self, name: &str, with: &str) {
        for ending in ["pem", "key"] {
            self.replace_file(&format!("{name}.{ending}"), &format!("{with}.{ending}"));
        }
    }

    pub(super) fn replace_file(&self, name: &str, with: &str) {
        let new = self.path("new");
        std::fs::copy(self.path(with), &new).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }
}

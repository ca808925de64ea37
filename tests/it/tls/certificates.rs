//! Certificates for tests, made with the command of `OpenSSL`.

use std::process::Command;
use std::time::SystemTime;

use tempfile::TempDir;

use crate::fixtures::in_seconds;

/// A directory of certificates and keys, `NAME.pem` and `NAME.key`: the issuer `ca`, and `server`, which names 127.0.0.1.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    pub(crate) fn new() -> Self {
        let certificates = Self(tempfile::tempdir().unwrap());
        certificates.issuer("ca");
        certificates.issue("server", "ca", "IP:127.0.0.1");
        certificates
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// The flags of a server with the certificate `server`.
    pub(crate) fn flags(&self) -> [String; 4] {
        ["--tls-cert", "server.pem", "--tls-key", "server.key"].map(|word| {
            if word.starts_with("--") {
                word.to_owned()
            } else {
                self.path(word)
            }
        })
    }

    /// A self-signed certificate that may issue others.
    pub(crate) fn issuer(&self, name: &str) {
        self.new_key(
            name,
            &["-subj", &format!("/CN={name}"), "-days", "30", "-x509"],
        );
    }

    /// A certificate for a host or a client.
    pub(crate) fn issue(&self, name: &str, issuer: &str, alternative_name: &str) {
        self.issue_with(name, issuer, alternative_name, "CA:FALSE", 30);
    }

    /// A certificate of the issuer `ca` for 127.0.0.1 that is valid for so many days.
    pub(crate) fn issue_for_days(&self, name: &str, days: u32) {
        self.issue_with(name, "ca", "IP:127.0.0.1", "CA:FALSE", days);
    }

    /// A certificate for a host, from an issuer with two others between it and the issuer `ca`. They are in the same file.
    pub(crate) fn issue_below_others(&self, name: &str, alternative_name: &str) {
        self.issue_with("upper", "ca", "DNS:upper", "CA:TRUE", 30);
        self.issue_with("lower", "upper", "DNS:lower", "CA:TRUE", 30);
        self.issue(name, "lower", alternative_name);
        let chain = [name, "lower", "upper"]
            .map(|name| std::fs::read_to_string(self.path(&format!("{name}.pem"))).unwrap());
        std::fs::write(self.path(&format!("{name}.pem")), chain.concat()).unwrap();
    }

    fn issue_with(
        &self,
        name: &str,
        issuer: &str,
        alternative_name: &str,
        constraint: &str,
        days: u32,
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
                &days.to_string(),
                "-subj",
                &format!("/CN={name}"),
                "-addext",
                &format!("subjectAltName={alternative_name}"),
                "-addext",
                &format!("basicConstraints=critical,{constraint}"),
            ],
        );
    }

    /// A certificate of the issuer `ca` for 127.0.0.1 that was valid until yesterday.
    pub(crate) fn issue_expired(&self, name: &str) {
        self.issue_expired_by(name, "ca");
    }

    pub(crate) fn issue_expired_by(&self, name: &str, issuer: &str) {
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

    /// A certificate of the issuer `ca` that expires so many seconds from now.
    pub(crate) fn issue_for_seconds(&self, name: &str, alternative_name: &str, seconds: i64) {
        let end = SystemTime::try_from(in_seconds(seconds)).unwrap();
        let end = humantime::format_rfc3339_seconds(end).to_string();
        let end: String = end.chars().filter(|c| !"-:T".contains(*c)).collect();
        self.issue_between(name, alternative_name, &["-enddate", &end]);
    }

    /// A certificate of the issuer `ca` that is valid from 2099 on.
    pub(crate) fn issue_future(&self, name: &str) {
        let dates = [
            "-startdate",
            "20990101000000Z",
            "-enddate",
            "21000101000000Z",
        ];
        self.issue_between(name, "IP:127.0.0.1", &dates);
    }

    fn issue_between(&self, name: &str, alternative_name: &str, dates: &[&str]) {
        let [out, request, extensions] =
            ["pem", "csr", "ext"].map(|ending| format!("{name}.{ending}"));
        self.new_key(name, &["-subj", &format!("/CN={name}"), "-out", &request]);
        let write = |file: &str, text: &str| std::fs::write(self.path(file), text).unwrap();
        write(&extensions, &format!("subjectAltName={alternative_name}"));
        write("issued", "");
        write(
            "ca.conf",
            "[ca]\ndefault_ca = ca\n[ca]\nnew_certs_dir = .\ndatabase = issued\nserial = serial\ndefault_md = sha256\npolicy = any\n\
             [any]\ncommonName = supplied\n",
        );
        let line = "ca -batch -notext -create_serial -config ca.conf -cert ca.pem -keyfile ca.key";
        let mut line: Vec<_> = line.split(' ').collect();
        line.extend(dates);
        line.extend(["-extfile", &extensions, "-in", &request, "-out", &out]);
        self.openssl(&line);
    }

    /// A certificate for 127.0.0.1 that is its own issuer.
    pub(crate) fn self_sign(&self, name: &str, constraint: &str) {
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
    pub(crate) fn openssl(&self, line: &[&str]) {
        let output = Command::new("openssl")
            .args(line)
            .current_dir(self.0.path())
            .output()
            .expect("openssl is installed; `tests/run` does that");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line:?}: {complaint}");
    }

    /// Puts the certificate and the key of this name in the place of others.
    pub(crate) fn replace(&self, name: &str, with: &str) {
        for ending in ["pem", "key"] {
            self.replace_file(&format!("{name}.{ending}"), &format!("{with}.{ending}"));
        }
    }

    pub(crate) fn replace_file(&self, name: &str, with: &str) {
        let new = self.path("new");
        std::fs::copy(self.path(with), &new).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }
}

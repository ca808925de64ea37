//! The examples for Prometheus and Grafana, in Debian's Prometheus: it scrapes real servers with the configuration of the example.

mod alerts;
mod causes;
mod dashboard;
mod rules;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixtures::{DEADLINE, eventually, installed};
use crate::tls::TlsServer;

/// A server to scrape.
struct Target {
    /// `IP:PORT`, which becomes the label `instance`.
    address: String,
    /// The issuer of its certificate, if it serves TLS.
    ca_file: Option<String>,
}

impl Target {
    fn plain(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ca_file: None,
        }
    }

    fn with_tls(server: &TlsServer) -> Self {
        Self {
            address: server.http_address().to_owned(),
            ca_file: Some(server.ca_file()),
        }
    }
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The example's configuration for these targets, scraped each second.
fn configuration(targets: &[Target]) -> String {
    let example = example("prometheus/prometheus.yml").replace("_interval: 15s", "_interval: 1s");
    let line = example
        .lines()
        .find(|line| line.contains("- targets:"))
        .unwrap();
    let indent = &line[..line.len() - line.trim_start().len()];
    let own = targets.iter().map(|target| {
        let scheme = target.ca_file.as_ref().map_or("http", |_| "https");
        let address = &target.address;
        format!("{indent}- {{targets: [\"{address}\"], labels: {{__scheme__: {scheme}}}}}")
    });
    let mut configuration = example.replace(line, &own.collect::<Vec<_>>().join("\n"));
    if let Some(ca_file) = targets.iter().find_map(|target| target.ca_file.as_ref()) {
        let job = "    static_configs:\n";
        let trusting = format!("    tls_config: {{ca_file: {ca_file}}}\n{job}");
        configuration = configuration.replace(job, &trusting);
    }
    configuration
}

/// Rules whose windows and times are a sixtieth of what they are: minutes become seconds, and hours minutes. So they fit an interval
/// of a second as the example's fit one of a minute.
fn quickened(rules: &str) -> String {
    let mut quickened = String::new();
    for line in rules.split_inclusive('\n') {
        let mut rest = line;
        let starts = ["[", "for: ", "offset "];
        while let Some((at, start)) = starts
            .iter()
            .filter_map(|start| Some((rest.find(start)? + start.len(), start)))
            .min()
        {
            quickened.push_str(&rest[..at]);
            rest = &rest[at..];
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let unit = match (digits, rest.as_bytes().get(digits)) {
                (1.., Some(b'm')) => "s",
                (1.., Some(b'h')) => "m",
                (1.., _) => panic!("{start}{rest}: minutes or hours"),
                _ => continue,
            };
            quickened.extend([&rest[..digits], unit]);
            rest = &rest[digits + 1..];
        }
        quickened.push_str(rest);
    }
    quickened
}

/// A running Prometheus with the example's rules, quickened. Killed when dropped.
struct Prometheus {
    child: Child,
    address: String,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts it, and waits until it has scraped each target.
    async fn scraping(targets: &[Target]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, configuration(targets)).unwrap();
        let rules = quickened(&example("prometheus/alerts.yml"));
        std::fs::write(dir.path().join("alerts.yml"), rules).unwrap();
        let mut child = Command::new(installed("prometheus", &[]))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (found, listening) = mpsc::channel();
        std::thread::spawn(move || {
            let mut log = String::new();
            for line in stderr.lines().map_while(Result::ok) {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                if said["msg"] == "Listening on" {
                    let _ = found.send(Ok(said["address"].as_str().unwrap().to_owned()));
                }
                log.extend([&line, "\n"]);
            }
            // It has ended by itself.
            let _ = found.send(Err(log));
        });
        let listening = listening.recv_timeout(DEADLINE);
        let address = listening
            .expect("it starts")
            .unwrap_or_else(|log| panic!("{log}"));
        let prometheus = Self {
            child,
            address,
            _dir: dir,
        };
        eventually("each target is scraped", async || {
            // It listens before it answers.
            let up = prometheus.try_query("up == 1").await.ok()?;
            (up.len() == targets.len()).then_some(())
        })
        .await;
        prometheus
    }

    /// The data of an answer of the API at a path.
    async fn get(&self, path: &str) -> Result<Value, String> {
        let mut connection = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.address);
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut body: Value = serde_json::from_str(body).map_err(|_| format!("{head}\n{body}"))?;
        match body["status"].as_str() {
            Some("success") => Ok(body["data"].take()),
            _ => Err(body["error"].to_string()),
        }
    }

    /// The series that a query returns now.
    async fn try_query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded = query.bytes().fold(String::new(), |mut encoded, byte| {
            let _ = write!(encoded, "%{byte:02x}");
            encoded
        });
        let mut data = self.get(&format!("/api/v1/query?query={encoded}")).await?;
        match data["result"].take() {
            Value::Array(series) => Ok(series),
            other => Err(format!("no series: {other}")),
        }
    }

    /// The same for a query that is right.
    async fn query(&self, query: &str) -> Vec<Value> {
        let series = self.try_query(query).await;
        series.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The rules as it has read them.
    async fn rules(&self) -> Vec<Value> {
        // It answers before it has loaded them.
        eventually("the rules are loaded", async || {
            let groups = self.get("/api/v1/rules").await.ok()?;
            let rules = groups["groups"][0]["rules"].as_array()?;
            let evaluated = rules.iter().all(|rule| rule["health"] != "unknown");
            evaluated.then(|| rules.clone())
        })
        .await
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

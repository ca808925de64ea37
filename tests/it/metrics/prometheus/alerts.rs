//! Each alert fires in the real Prometheus when its cause is there, and none does about a server that is well.

use std::collections::BTreeSet;

use super::causes::{
    BusyServer, DamagedStore, DistantStore, Server, lose_the_revocation, open_many_connections,
    refused_for_the_disk,
};
use super::rules::{OF_A_BUSY_MACHINE, alerts};
use super::{Prometheus, Target};
use crate::fixtures::eventually;
use crate::tls::{TlsServer, server_with_a_short_certificate};

/// What needs a Prometheus without a target. `promtool` alone runs it.
const NOT_CAUSED: [&str; 1] = ["ClavigerAbsent"];

impl Prometheus {
    /// Waits until an alert has fired about a server, with these labels besides.
    async fn has_fired(&self, alert: &str, instance: &str, labels: &str) {
        let query = format!(
            "last_over_time(ALERTS{{alertname=\"{alert}\", instance=\"{instance}\", alertstate=\"firing\", {labels}}}[10m])"
        );
        eventually(&query, async || {
            (!self.query(&query).await.is_empty()).then_some(())
        })
        .await;
    }
}

/// A server for each cause that would be in the way of another, and two without any.
struct Servers {
    calm: Server,
    used: BusyServer,
    down: Server,
    draining: Server,
    restarting: Server,
    full_log: Server,
    rewritten: Server,
    limited: Server,
    distant: DistantStore,
    damaged: DamagedStore,
    busy: BusyServer,
    tls: TlsServer,
}

impl Servers {
    async fn start() -> Self {
        let mut limited = Server::start(&[]);
        let limits = [
            "--max-connections-per-address=8",
            "--disk-reserve=1000000GiB",
        ];
        limited.restart(&limits);
        Self {
            calm: Server::start(&[]),
            used: BusyServer::start().await,
            down: Server::start(&[]),
            draining: Server::start(&["--drain-delay", "10min"]),
            restarting: Server::start(&[]),
            full_log: Server::with_full_log(),
            rewritten: Server::start(&[]),
            limited,
            distant: DistantStore::start().await,
            damaged: DamagedStore::start().await,
            busy: BusyServer::start().await,
            tls: server_with_a_short_certificate().await,
        }
    }

    fn targets(&self) -> Vec<Target> {
        let plain = [
            &self.calm,
            &self.used.server,
            &self.down,
            &self.draining,
            &self.restarting,
            &self.full_log,
            &self.rewritten,
            &self.limited,
            &self.distant.server,
            &self.damaged.server,
            &self.busy.server,
        ];
        let mut targets: Vec<_> = plain.map(|server| Target::plain(server.instance())).into();
        targets.push(Target::with_tls(&self.tls));
        targets
    }

    /// What happens once.
    async fn cause(&mut self, prometheus: &Prometheus) {
        self.down.program.kill();
        self.draining.program.signal("TERM");
        let mut api = self.rewritten.program.api();
        api.make_demo().await;
        let key = api.issue().await.key.unwrap();
        api.revoke(&key.id).await.unwrap();
        lose_the_revocation(&self.rewritten.test_store).await;
        let few = self.rewritten.program.descriptors() + 2;
        self.rewritten.program.limit_descriptors(few as u64);
        self.full_log.program.api().make_demo().await;
        refused_for_the_disk(&self.limited.program).await;
        open_many_connections(&self.limited.program).await;
        self.distant.lose().await;
        self.damaged.read().await;
        self.busy.call_with_a_wrong_key().await;
        self.tls.spoil_the_certificate();
        let changes = format!(
            "changes(process_start_time_seconds{{instance=\"{}\"}}[1m])",
            self.restarting.instance()
        );
        for restart in 1..=3 {
            self.restarting.restart(&[]);
            eventually("the restart is seen", async || {
                let changes = prometheus.query(&changes).await;
                let seen = changes.first()?["value"][1].as_str() == Some(&restart.to_string());
                seen.then_some(())
            })
            .await;
        }
    }

    /// What goes on.
    async fn be_asked(&self) {
        loop {
            self.busy.present_keys().await;
            self.busy.ask_as_misconfigured_gateways().await;
            self.busy.verify_slowly().await;
            self.damaged.ask().await;
            self.used.use_well().await;
        }
    }

    /// The alerts of these causes, each with its server and labels.
    fn alerts(&self) -> Vec<(&'static str, &str, &'static str)> {
        let [damaged, busy] = [&self.damaged.server, &self.busy.server].map(Server::instance);
        let [limited, rewritten] = [&self.limited, &self.rewritten].map(Server::instance);
        let distant = self.distant.server.instance();
        let tls = self.tls.http_address();
        vec![
            ("ClavigerDown", self.down.instance(), ""),
            ("ClavigerNotReady", self.draining.instance(), ""),
            ("ClavigerRestarts", self.restarting.instance(), ""),
            ("ClavigerDescriptorsNearlyUsedUp", rewritten, ""),
            ("ClavigerLogLinesLost", self.full_log.instance(), ""),
            ("ClavigerHistoryRewritten", rewritten, ""),
            ("ClavigerFeedLag", distant, ""),
            ("ClavigerHeartbeatOld", distant, ""),
            ("ClavigerLeaseLow", distant, ""),
            ("ClavigerStoreErrors", distant, "error=\"unavailable\""),
            ("ClavigerStoreDamaged", damaged, "error=\"data\""),
            ("ClavigerUsageNotWritten", distant, ""),
            ("ClavigerDiskNearlyFull", limited, ""),
            ("ClavigerGatewayMisconfigured", busy, "gateway=\"nginx\""),
            (
                "ClavigerGatewayMisconfigured",
                busy,
                "gateway=\"envoy over gRPC\"",
            ),
            ("ClavigerUndecided", damaged, "realm=\"demo\""),
            ("ClavigerUndecided", damaged, "grpc_code=\"Internal\""),
            (
                "ClavigerCallersRefused",
                busy,
                "grpc_code=\"Unauthenticated\"",
            ),
            ("ClavigerSlow", busy, "grpc_method=\"Verify\""),
            (
                "ClavigerLimitReached",
                limited,
                "limit=\"connections_of_address\"",
            ),
            ("ClavigerKeyGuessing", busy, "realm=\"demo\""),
            ("ClavigerDenialsRise", busy, "verdict=\"scope_missing\""),
            ("ClavigerCertificateExpiresSoon", tls, ""),
            ("ClavigerCertificateExpires", tls, ""),
            ("ClavigerCertificateReloadFailing", tls, ""),
        ]
    }
}

/// Windows and times are a sixtieth of the example's. Bursts come between two scrapes of a server that has just started. Seen red
/// for `ClavigerCallersRefused` without `CODES_FROM_START`, with the threshold of `ClavigerSlow` out of reach, and with an alert about
/// a smaller share of wrong keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_alert_fires_when_its_cause_is_there_and_none_about_a_server_that_is_well() {
    let mut servers = Servers::start().await;
    let prometheus = Prometheus::scraping(&servers.targets()).await;
    servers.cause(&prometheus).await;
    let all_have_fired = async {
        for (alert, instance, labels) in servers.alerts() {
            prometheus.has_fired(alert, instance, labels).await;
        }
    };
    tokio::select! {
        () = servers.be_asked() => {}
        () = all_have_fired => {}
    }

    let fired = servers.alerts().into_iter().map(|(alert, ..)| alert);
    let fired: BTreeSet<_> = fired.chain(NOT_CAUSED).map(str::to_owned).collect();
    assert_eq!(
        fired,
        alerts().into_iter().collect(),
        "each alert has a cause"
    );
    for well in [&servers.calm, &servers.used.server] {
        let alerts = format!(
            "last_over_time(ALERTS{{instance=\"{}\", alertname!~\"{}\"}}[10m])",
            well.instance(),
            OF_A_BUSY_MACHINE.join("|")
        );
        let alerts = prometheus.query(&alerts).await;
        assert!(alerts.is_empty(), "{alerts:?}");
    }
}

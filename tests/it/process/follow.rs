//! The audit trail, followed as it grows.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1 as pb;
use tonic::Request;

use crate::fixtures::{
    Api, DEADLINE, DemoService, Engine, Program, TestStore, claviger, on_both_engines,
    refused_field,
};

fn after(revision: u64) -> pb::ListEventsRequest {
    pb::ListEventsRequest {
        after_revision: Some(revision),
        ..Default::default()
    }
}

async fn list(api: &mut Api, request: pb::ListEventsRequest) -> (Vec<u64>, u64) {
    let listed = api.keys.list_events(request).await.unwrap().into_inner();
    assert!(listed.next_page_token.is_empty());
    let events = listed.events.iter().map(|event| event.revision);
    (events.collect(), listed.revision)
}

on_both_engines! {
    async fn events_after_a_revision_come_oldest_first_and_in_parts(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let (all, last) = list(root, after(0)).await;
        assert!(all.is_sorted() && *all.last().unwrap() == last && all.len() > 3, "{all:?}");
        let mut in_parts = Vec::new();
        let mut at = 0;
        while at < last {
            let (some, next) = list(root, pb::ListEventsRequest { page_size: 2, ..after(at) }).await;
            assert!(some.len() <= 2 && next > at);
            in_parts.extend(some);
            at = next;
        }
        assert_eq!(in_parts, all);
        // What does not match is not there, and is not looked at again.
        let of_kind = pb::ListEventsRequest { kind: "partner.put".to_owned(), ..after(0) };
        let (some, next) = list(root, of_kind).await;
        assert!(some.len() < all.len() && !some.is_empty());
        assert_eq!(next, last);
        let request = pb::ListEventsRequest { page_size: 1, ..Default::default() };
        let page = root.keys.list_events(request).await.unwrap().into_inner();
        assert_eq!(page.revision, last);
        let both = pb::ListEventsRequest { page_token: page.next_page_token, ..after(0) };
        refused_field(root.keys.list_events(both).await, "page_token");
        demo.service.stop().await;
    }

    /// Seen red without the wait, and with one that never ends.
    async fn a_call_waits_for_the_next_change_or_until_shortly_before_its_deadline(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let (_, last) = list(&mut demo.root, after(0)).await;
        let waiting = tokio::spawn({
            let mut root = demo.root.clone();
            async move { list(&mut root, after(last)).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waiting.is_finished());
        demo.root.put_partner("new", false).await;
        assert_eq!(waiting.await.unwrap(), (vec![last + 1], last + 1));

        let mut request = Request::new(after(last + 1));
        request.set_timeout(Duration::from_secs(2));
        let began = Instant::now();
        let answer = demo.root.keys.list_events(request).await.unwrap().into_inner();
        assert!(answer.events.is_empty() && answer.revision == last + 1);
        assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
        demo.service.stop().await;
    }

    async fn nobody_who_waits_delays_the_stop(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let (_, last) = list(&mut demo.root, after(0)).await;
        let waiting: Vec<_> = (0..4).map(|_| {
            let mut root = demo.root.clone();
            tokio::spawn(async move { root.keys.list_events(after(last)).await })
        }).collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        demo.service.stop().await;
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        for waiting in waiting {
            assert!(waiting.await.unwrap().unwrap().into_inner().events.is_empty());
        }
    }
}

/// `claviger events --follow`, and what it prints.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(program: &Program, flags: &[&str]) -> Self {
        let mut child = claviger(&[&["events", "--follow"], flags].concat())
            .env("CLAVIGER_ENDPOINT", &program.address)
            .env("CLAVIGER_KEY", program.operator())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_command_line_follows_across_a_restart_and_filters() {
    let test_store = TestStore::on(Engine::Sqlite);
    let mut program = Program::serve_at(&test_store, ["127.0.0.2:0", "127.0.0.1:0"], &[]);
    program.api().make_demo().await;
    let all = Follower::start(&program, &["--since", "1h"]);
    assert!(all.line().contains("  authority.created  claviger"));
    let of_kind = Follower::start(
        &program,
        &["--since", "1h", "--kind", "project.put", "--json"],
    );
    let of_kinds = Follower::start(
        &program,
        &[
            "--since",
            "1h",
            "--kind",
            "partner.suspended,key.revoked",
            "--json",
        ],
    );
    for _ in 0..3 {
        let event: serde_json::Value = serde_json::from_str(&of_kind.line()).unwrap();
        assert_eq!(event["kind"], "project.put");
    }
    let mut last = String::new();
    while !last.contains("project=three") {
        last = all.line();
    }
    assert!(last.contains("  project.put  demo umbrella  "), "{last}");
    // Nothing is lost, and nothing comes twice, while the server is away.
    let address = program.address.clone();
    program.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let program = Program::serve_at(&test_store, [&address, "127.0.0.1:0"], &[]);
    program.api().put_partner("new", false).await;
    assert!(all.line().contains("  partner.put  demo new  "));
    let mut api = program.api();
    api.put_partner("new", true).await;
    api.put_partner("new", false).await;
    let key = api.issue().await.key.unwrap().id;
    api.revoke(&key).await.unwrap();
    for (kind, partner) in [("partner.put", "new"), ("key.revoked", "acme")] {
        let event: serde_json::Value = serde_json::from_str(&of_kinds.line()).unwrap();
        assert_eq!(
            (&event["kind"], &event["partner"]),
            (&kind.into(), &partner.into())
        );
    }
    assert!(of_kind.lines.try_recv().is_err());
}

//! Who only wants to work beside an attack: an operator and a gateway. Each has a thread of its own, so that it waits for the server
//! and not for the attackers, which share this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use tokio::runtime;
use tonic::Status;

use crate::fixtures::{Api, Program, issue_request_with, verify_request};

/// A bystander at work.
pub(super) struct Bystander {
    name: &'static str,
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    working: JoinHandle<Work>,
}

/// What a bystander did.
pub(super) struct Work {
    name: &'static str,
    rounds: usize,
    longest_round: Duration,
    /// What failed, or had the wrong answer.
    failures: Vec<String>,
}

impl Bystander {
    /// An operator, who issues a key, reads it and revokes it, again and again. Afterwards the key is not good any more.
    pub(super) fn operator(program: &Program) -> Self {
        Self::start("operator", program, program.operator(), async |api| {
            let request = issue_request_with(|key| "umbrella".clone_into(&mut key.partner));
            let issued = api.keys.issue_key(request).await;
            let issued = issued.map_err(|status| failed("IssueKey", &status))?;
            let issued = issued.into_inner();
            let key_id = issued.key.unwrap().id;
            let request = pb::GetKeyRequest {
                key_id: key_id.clone(),
                ..Default::default()
            };
            let got = api.keys.get_key(request).await;
            got.map_err(|status| failed("GetKey", &status))?;
            let revoked = api.revoke(&key_id).await;
            revoked.map_err(|status| failed("RevokeKey", &status))?;
            verify(api, &issued.plain_key, Verdict::Revoked).await
        })
    }

    /// A gateway, which verifies a good key, again and again.
    pub(super) fn gateway(program: &Program, gateway_key: String, plain_key: String) -> Self {
        Self::start("gateway", program, gateway_key, async move |api| {
            verify(api, &plain_key, Verdict::Allowed).await
        })
    }

    fn start(
        name: &'static str,
        program: &Program,
        caller_key: String,
        round: impl AsyncFn(&mut Api) -> Result<(), String> + Send + 'static,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let (is_over, made) = (Arc::clone(&over), Arc::clone(&rounds));
        let address = program.address.clone();
        let work = async move || {
            let mut api = Api::new(&address, &caller_key);
            let mut work = Work {
                name,
                rounds: 0,
                longest_round: Duration::ZERO,
                failures: Vec::new(),
            };
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                work.failures.extend(round(&mut api).await.err());
                work.longest_round = work.longest_round.max(began.elapsed());
                work.rounds += 1;
                made.store(work.rounds, Ordering::Relaxed);
            }
            work
        };
        let working = std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work())
        });
        Self {
            name,
            over,
            rounds,
            working,
        }
    }

    /// Whether it has made so many rounds.
    pub(super) fn has_made(&self, rounds: usize) -> bool {
        self.rounds.load(Ordering::Relaxed) >= rounds
    }

    /// Lets it finish its round.
    pub(super) fn end(self) -> Work {
        self.over.store(true, Ordering::Relaxed);
        let panicked = |_| panic!("the {} panicked", self.name);
        self.working.join().unwrap_or_else(panicked)
    }
}

impl Work {
    pub(super) fn assert_nothing_failed(&self, beside: &str) {
        let Self {
            name,
            rounds,
            longest_round,
            failures,
        } = self;
        println!("  {name}: {rounds} rounds, the longest {longest_round:.1?}");
        let first = &failures[..failures.len().min(5)];
        assert!(
            failures.is_empty(),
            "{name} beside {beside}: {} of {rounds} rounds failed: {first:#?}",
            failures.len()
        );
    }
}

async fn verify(api: &mut Api, plain_key: &str, expected: Verdict) -> Result<(), String> {
    let answer = api.verify.verify(verify_request(plain_key)).await;
    let answer = answer.map_err(|status| failed("Verify", &status))?;
    match answer.into_inner().verdict() {
        verdict if verdict == expected => Ok(()),
        verdict => Err(format!("Verify: {verdict:?} instead of {expected:?}")),
    }
}

fn failed(method: &str, status: &Status) -> String {
    format!("{method}: {:?}: {}", status.code(), status.message())
}

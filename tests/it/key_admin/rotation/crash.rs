//! Rotations, and a server that is killed between them at any moment.
//!
//! Seen red with the acknowledgement before the commit, with the new secret and the end of the old one written in two
//! transactions, and with the answer to a request kept in another transaction than the rotation.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::{KeepSecret, Verdict};
use tonic::{Code, Status};

use crate::fixtures::{
    Api, Engine, Program, TestStore, end_rotation, eventually, from_env, get, issue, issue_request,
    on_both_engines, request_id, rotate_request,
};

const CLIENTS: usize = 4;

/// No overlap ends while the test runs.
const OVERLAP: i64 = 24 * 3_600;

/// The API keys by which a key works. The new one may have been lost with its answer.
#[derive(Clone, Debug, PartialEq)]
enum ValidKeys {
    One(String),
    Two { old: String, new: Option<String> },
}

impl ValidKeys {
    fn secrets(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Two { .. } => 2,
        }
    }

    fn works(&self, plain_key: &str) -> bool {
        match self {
            Self::One(only) => only == plain_key,
            Self::Two { old, new } => old == plain_key || new.as_deref() == Some(plain_key),
        }
    }

    fn after_rotation(&self, new: Option<String>) -> Self {
        let (Self::One(old) | Self::Two { old, .. }) = self;
        Self::Two {
            old: old.clone(),
            new,
        }
    }

    fn after_end(&self, keep: KeepSecret) -> Self {
        match (self, keep) {
            (Self::Two { old, .. }, KeepSecret::Old) => Self::One(old.clone()),
            (Self::Two { new: Some(new), .. }, KeepSecret::New) => Self::One(new.clone()),
            _ => panic!("nobody asked for that"),
        }
    }
}

/// What was asked for, and whether it was done is not known.
#[derive(Clone, Debug)]
enum Pending {
    Rotation { request_id: String },
    End(KeepSecret),
}

/// A key, in the knowledge of who holds it.
struct RotationClient {
    id: String,
    valid: ValidKeys,
    pending: Option<Pending>,
    /// Every API key that an answer has returned.
    returned: HashSet<String>,
    steps: usize,
}

impl RotationClient {
    async fn new(api: &mut Api, number: usize) -> Self {
        let key = issue(api, issue_request()).await;
        Self {
            id: key.id,
            returned: HashSet::from([key.plain_key.clone()]),
            valid: ValidKeys::One(key.plain_key),
            pending: None,
            steps: number,
        }
    }

    /// Rotates, with answers that are believed only if they come, until none does.
    async fn go_on(mut self, mut api: Api, answered: Arc<AtomicUsize>) -> Self {
        loop {
            self.steps += 1;
            let ended = match (&self.valid, self.steps % 5) {
                (ValidKeys::Two { new: Some(_), .. }, 0 | 2) => Some(KeepSecret::New),
                (ValidKeys::Two { .. }, 3) => Some(KeepSecret::Old),
                _ => None,
            };
            let answer = match ended {
                Some(keep) => self.end(&mut api, keep).await,
                None => self.rotate(&mut api, request_id()).await.map(drop),
            };
            if let Err(status) = answer {
                // Of the server's own refusals there is none to expect here.
                assert!(
                    !matches!(
                        status.code(),
                        Code::FailedPrecondition
                            | Code::InvalidArgument
                            | Code::NotFound
                            | Code::PermissionDenied
                            | Code::Unimplemented
                    ),
                    "{status:?}"
                );
                return self;
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it had been done before.
    async fn rotate(&mut self, api: &mut Api, request_id: String) -> Result<bool, Status> {
        let request = pb::RotateKeyRequest {
            request_id: request_id.clone(),
            ..rotate_request(&self.id, OVERLAP)
        };
        self.pending = Some(Pending::Rotation { request_id });
        let rotated = api.keys.rotate_key(request).await?.into_inner();
        self.pending = None;
        assert_eq!(rotated.plain_key.is_empty(), rotated.replayed);
        let new = (!rotated.replayed).then_some(rotated.plain_key);
        self.returned.extend(new.clone());
        self.valid = self.valid.after_rotation(new);
        Ok(rotated.replayed)
    }

    async fn end(&mut self, api: &mut Api, keep: KeepSecret) -> Result<(), Status> {
        self.pending = Some(Pending::End(keep));
        end_rotation(api, &self.id, keep).await?;
        self.pending = None;
        self.valid = self.valid.after_end(keep);
        Ok(())
    }

    /// Whether the server decides on each API key as follows from this.
    async fn is_so(&self, api: &mut Api, valid: &ValidKeys) -> bool {
        let mut right = get(api, &self.id).await.secrets.len() == valid.secrets();
        for plain_key in &self.returned {
            let expected = if valid.works(plain_key) {
                Verdict::Allowed
            } else {
                Verdict::Unknown
            };
            right &= api.verdict(plain_key).await == expected;
        }
        right
    }

    /// Holds the server to what was answered; what was not may have been done or not, and wholly.
    async fn check(&mut self, api: &mut Api) {
        let before = self.valid.clone();
        let after = match &self.pending {
            None => before.clone(),
            Some(Pending::Rotation { .. }) => before.after_rotation(None),
            Some(Pending::End(keep)) => before.after_end(*keep),
        };
        let is_before = self.is_so(api, &before).await;
        let is_after = self.is_so(api, &after).await;
        assert!(
            is_before || is_after,
            "{}: neither as before nor as after {:?}, with {} secrets",
            self.id,
            self.pending,
            get(api, &self.id).await.secrets.len()
        );
        match self.pending.take() {
            None => {}
            Some(Pending::Rotation { request_id }) => {
                // The repetition says which it was, and does it if it was not.
                let was_done = self.rotate(api, request_id).await.unwrap();
                assert!(if was_done { is_after } else { is_before });
                assert!(self.is_so(api, &self.valid).await);
            }
            Some(Pending::End(_)) => self.valid = if is_after { after } else { before },
        }
    }
}

on_both_engines! {
    async fn no_text_of_an_answer_is_lost_by_a_kill_at_any_moment_of_a_rotation(engine: Engine) {
        let cycles = match engine {
            Engine::Sqlite => from_env("CLAVIGER_TEST_KILLS_IN_ROTATION", 20),
            Engine::Postgres => from_env("CLAVIGER_TEST_KILLS_IN_ROTATION", 20) / 2,
        };
        let test_store = TestStore::on(engine);
        let flags = ["--log", "error,claviger=info"];
        let mut program = Program::serve(&test_store, &flags);
        let mut api = program.api();
        api.make_demo().await;
        let mut holders = Vec::new();
        for number in 0..CLIENTS {
            holders.push(RotationClient::new(&mut api, number).await);
        }
        let mut in_doubt = 0;
        let mut steps = 0;
        for cycle in 0..cycles {
            let answered = Arc::new(AtomicUsize::new(0));
            let going: Vec<_> = holders
                .into_iter()
                .map(|holder| tokio::spawn(holder.go_on(program.api(), Arc::clone(&answered))))
                .collect();
            // Told by the answers, since a machine may be slow, and a little time on top, so that it falls anywhere.
            let enough = [2, 7, 19, 40][cycle % 4];
            eventually("enough is answered", async || {
                (answered.load(Ordering::Relaxed) >= enough).then_some(())
            })
            .await;
            tokio::time::sleep(Duration::from_micros((cycle as u64 * 79_193) % 20_000)).await;
            program.kill();
            holders = Vec::new();
            for holder in going {
                holders.push(holder.await.unwrap());
            }
            steps += answered.load(Ordering::Relaxed);
            program = Program::serve(&test_store, &flags);
            let mut api = program.api();
            for holder in &mut holders {
                in_doubt += usize::from(holder.pending.is_some());
                holder.check(&mut api).await;
            }
        }
        println!("{cycles} kills: {steps} answers, {in_doubt} calls without one; no key lost");
        assert!(in_doubt > cycles / 4, "too few calls were cut off");
    }
}

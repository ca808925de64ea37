//! Rotations, and a server that is killed between them at any moment.
//!
//! Seen red with the acknowledgement before the commit, with the new secret and the end of the old one written in two
//! transactions, and with the answer to a request kept in another transaction than the rotation.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::{Survivor, Verdict};
use tonic::{Code, Status};

use crate::fixtures::{
    Api, Engine, Program, TestStore, end_rotation, eventually, from_env, get, issue, issue_request,
    on_both_engines, request_id, rotate_request,
};

const HOLDERS: usize = 4;

/// No overlap ends while the test runs.
const OVERLAP: i64 = 24 * 3_600;

/// The texts of a key that work. The new one may have been lost with its answer.
#[derive(Clone, Debug, PartialEq)]
enum Texts {
    One(String),
    Two { old: String, new: Option<String> },
}

impl Texts {
    fn secrets(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Two { .. } => 2,
        }
    }

    fn works(&self, text: &str) -> bool {
        match self {
            Self::One(only) => only == text,
            Self::Two { old, new } => old == text || new.as_deref() == Some(text),
        }
    }

    fn after_rotation(&self, new: Option<String>) -> Self {
        let (Self::One(old) | Self::Two { old, .. }) = self;
        Self::Two {
            old: old.clone(),
            new,
        }
    }

    fn after_end(&self, survivor: Survivor) -> Self {
        match (self, survivor) {
            (Self::Two { old, .. }, Survivor::Old) => Self::One(old.clone()),
            (Self::Two { new: Some(new), .. }, Survivor::New) => Self::One(new.clone()),
            _ => panic!("nobody asked for that"),
        }
    }
}

/// What was asked for, and whether it was done is not known.
#[derive(Clone, Debug)]
enum Open {
    Rotation { request_id: String },
    End(Survivor),
}

/// A key, in the knowledge of who holds it.
struct Holder {
    id: String,
    texts: Texts,
    open: Option<Open>,
    /// Every text that was ever answered.
    ever: HashSet<String>,
    steps: usize,
}

impl Holder {
    async fn new(api: &mut Api, number: usize) -> Self {
        let key = issue(api, issue_request()).await;
        Self {
            id: key.id,
            ever: HashSet::from([key.plain_key.clone()]),
            texts: Texts::One(key.plain_key),
            open: None,
            steps: number,
        }
    }

    /// Rotates, with answers that are believed only if they come, until none does.
    async fn go_on(mut self, mut api: Api, answered: Arc<AtomicUsize>) -> Self {
        loop {
            self.steps += 1;
            let ended = match (&self.texts, self.steps % 5) {
                (Texts::Two { new: Some(_), .. }, 0 | 2) => Some(Survivor::New),
                (Texts::Two { .. }, 3) => Some(Survivor::Old),
                _ => None,
            };
            let answer = match ended {
                Some(survivor) => self.end(&mut api, survivor).await,
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
        self.open = Some(Open::Rotation { request_id });
        let rotated = api.keys.rotate_key(request).await?.into_inner();
        self.open = None;
        assert_eq!(rotated.plain_key.is_empty(), rotated.replayed);
        let new = (!rotated.replayed).then_some(rotated.plain_key);
        self.ever.extend(new.clone());
        self.texts = self.texts.after_rotation(new);
        Ok(rotated.replayed)
    }

    async fn end(&mut self, api: &mut Api, survivor: Survivor) -> Result<(), Status> {
        self.open = Some(Open::End(survivor));
        end_rotation(api, &self.id, survivor).await?;
        self.open = None;
        self.texts = self.texts.after_end(survivor);
        Ok(())
    }

    /// Whether the server says of every text what follows from this.
    async fn is_so(&self, api: &mut Api, texts: &Texts) -> bool {
        let mut right = get(api, &self.id).await.secrets.len() == texts.secrets();
        for text in &self.ever {
            let expected = if texts.works(text) {
                Verdict::Allowed
            } else {
                Verdict::Unknown
            };
            right &= api.verdict(text).await == expected;
        }
        right
    }

    /// Holds the server to what was answered; what was not may have been done or not, and wholly.
    async fn check(&mut self, api: &mut Api) {
        let before = self.texts.clone();
        let after = match &self.open {
            None => before.clone(),
            Some(Open::Rotation { .. }) => before.after_rotation(None),
            Some(Open::End(survivor)) => before.after_end(*survivor),
        };
        let is_before = self.is_so(api, &before).await;
        let is_after = self.is_so(api, &after).await;
        assert!(
            is_before || is_after,
            "{}: neither as before nor as after {:?}, with {} secrets",
            self.id,
            self.open,
            get(api, &self.id).await.secrets.len()
        );
        match self.open.take() {
            None => {}
            Some(Open::Rotation { request_id }) => {
                // The repetition says which it was, and does it if it was not.
                let was_done = self.rotate(api, request_id).await.unwrap();
                assert!(if was_done { is_after } else { is_before });
                assert!(self.is_so(api, &self.texts).await);
            }
            Some(Open::End(_)) => self.texts = if is_after { after } else { before },
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
        for number in 0..HOLDERS {
            holders.push(Holder::new(&mut api, number).await);
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
                in_doubt += usize::from(holder.open.is_some());
                holder.check(&mut api).await;
            }
        }
        println!("{cycles} kills: {steps} answers, {in_doubt} calls without one; no text lost");
        assert!(in_doubt > cycles / 4, "too few calls were cut off");
    }
}

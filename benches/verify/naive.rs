//! The services that Verify is compared with: they decide in the most obvious way.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use claviger::domain::key::Key;
use claviger::domain::key_text::{self, SecretBytes};
use claviger::hashing::{Peppers, RootCost, Roots};
use claviger::pb::claviger::v1 as pb;
use pb::key_verify_server::KeyVerify;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

/// A service that compares each presented secret with an Argon2 root, as many at a time as there are cores.
pub(crate) struct Argon2OnEachCall {
    /// The root of a secret that no key has; a failed comparison costs the same.
    root: Arc<str>,
    running: Semaphore,
}

impl Argon2OnEachCall {
    pub(crate) async fn new() -> Result<Self, Box<dyn Error>> {
        let roots = Roots::new(RootCost::default())?;
        let root = roots.make(Arc::new(SecretBytes::new([0; 32]))).await;
        let cores = std::thread::available_parallelism()?.get();
        Ok(Self {
            root: root.into(),
            running: Semaphore::new(cores),
        })
    }
}

#[tonic::async_trait]
impl KeyVerify for Argon2OnEachCall {
    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<pb::VerifyResponse>, Status> {
        let _permit = self.running.acquire().await.map_err(internal)?;
        let root = Arc::clone(&self.root);
        tokio::task::spawn_blocking(move || {
            let parsed = key_text::parse(&request.get_ref().key)
                .map_err(|_| Status::internal("malformed key"))?;
            let root = PasswordHash::new(&root).map_err(internal)?;
            let proven = Argon2::default()
                .verify_password(parsed.secret.expose(), &root)
                .is_ok();
            Ok(answer(proven, None))
        })
        .await
        .map_err(internal)?
    }

    async fn verify_batch(
        &self,
        _: Request<pb::VerifyBatchRequest>,
    ) -> Result<Response<pb::VerifyBatchResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    type VerifyStreamStream = tokio_stream::Empty<Result<pb::VerifyStreamResponse, Status>>;

    async fn verify_stream(
        &self,
        _: Request<Streaming<pb::VerifyStreamRequest>>,
    ) -> Result<Response<Self::VerifyStreamStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn explain(
        &self,
        _: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// A service that reads the key's row from the database on each call, and compares its digest.
pub(crate) struct StoreReadOnEachCall {
    pool: SqlitePool,
    peppers: Peppers,
}

impl StoreReadOnEachCall {
    pub(crate) async fn new(data_dir: &Path) -> Result<Self, Box<dyn Error>> {
        let database: PathBuf = data_dir.join("claviger.db");
        let options = SqliteConnectOptions::new()
            .filename(database)
            .read_only(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        let peppers = Peppers::load(&data_dir.join("pepper.toml"))?.ok_or("no pepper file")?;
        Ok(Self { pool, peppers })
    }
}

#[tonic::async_trait]
impl KeyVerify for StoreReadOnEachCall {
    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<pb::VerifyResponse>, Status> {
        let parsed = key_text::parse(&request.get_ref().key)
            .map_err(|_| Status::internal("malformed key"))?;
        let facts: String = sqlx::query_scalar("SELECT facts FROM keys WHERE id = $1")
            .bind(parsed.id.as_uuid())
            .fetch_one(&self.pool)
            .await
            .map_err(internal)?;
        let key: Key = serde_json::from_str(&facts).map_err(internal)?;
        let proven = self
            .peppers
            .proves(&key.secrets[0].digest, parsed.id, &parsed.secret);
        Ok(answer(proven == Some(true), Some(key)))
    }

    async fn verify_batch(
        &self,
        _: Request<pb::VerifyBatchRequest>,
    ) -> Result<Response<pb::VerifyBatchResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    type VerifyStreamStream = tokio_stream::Empty<Result<pb::VerifyStreamResponse, Status>>;

    async fn verify_stream(
        &self,
        _: Request<Streaming<pb::VerifyStreamRequest>>,
    ) -> Result<Response<Self::VerifyStreamStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn explain(
        &self,
        _: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

fn answer(proven: bool, key: Option<Key>) -> Response<pb::VerifyResponse> {
    let verdict = if proven {
        pb::Verdict::Allowed
    } else {
        pb::Verdict::Unknown
    };
    let key = key.map(|key| pb::VerifiedKey {
        id: key.id.to_string(),
        realm: key.realm.to_string(),
        partner: key.partner.to_string(),
        environment: key.environment.to_string(),
        scopes: key.access.granted().map(ToString::to_string).collect(),
        name: key.name,
        labels: key.labels.into_iter().collect(),
        ..Default::default()
    });
    Response::new(pb::VerifyResponse {
        verdict: verdict.into(),
        key,
        ..Default::default()
    })
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

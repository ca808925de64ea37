//! A server as people get it from tonic: a service that does nothing on `tonic::transport::Server`, with its defaults. The
//! benchmark `verify` builds and starts it.

use std::error::Error;

use pb::key_verify_server::{KeyVerify, KeyVerifyServer};
use tokio::runtime::Builder;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

#[allow(clippy::all)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/claviger.v1.rs"));
}

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A service that immediately returns an empty response.
struct Empty;

#[tonic::async_trait]
impl KeyVerify for Empty {
    async fn verify(
        &self,
        _: Request<pb::VerifyRequest>,
    ) -> Result<Response<pb::VerifyResponse>, Status> {
        Ok(Response::new(pb::VerifyResponse::default()))
    }
}

/// Serves on one thread if the argument is `current-thread`, and prints the address on standard output.
fn main() -> Result<(), Box<dyn Error>> {
    let mut runtime = match std::env::args().nth(1).as_deref() {
        Some("current-thread") => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(async {
        // As `Server::serve` listens, but on a port that the system chooses.
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
        println!("{}", incoming.local_addr()?);
        Server::builder()
            .add_service(KeyVerifyServer::new(Empty))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

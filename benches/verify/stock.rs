//! A server as people get it from tonic: a service on `tonic::transport::Server`, with its defaults.

use std::error::Error;

use claviger::pb::claviger::v1::key_verify_server::{KeyVerify, KeyVerifyServer};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Serves one service and prints the address on standard output.
pub(crate) async fn serve(service: impl KeyVerify) -> Result<(), Box<dyn Error>> {
    // As `Server::serve` listens, but on a port that the system chooses.
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    println!("{}", incoming.local_addr()?);
    Server::builder()
        .add_service(KeyVerifyServer::new(service))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

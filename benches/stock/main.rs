//! Servers as people get them from tonic, with the allocator of the system. The benchmark `verify` starts this program, because
//! an allocator is chosen for a whole program. Without arguments, as under `cargo bench`, it does nothing.

#[path = "../verify/empty.rs"]
mod empty;
#[path = "../verify/stock.rs"]
mod stock;

use std::error::Error;

use tokio::runtime::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let mut runtime = match std::env::args().nth(1).as_deref() {
        Some("multi-thread") => Builder::new_multi_thread(),
        Some("current-thread") => Builder::new_current_thread(),
        _ => return Ok(()),
    };
    runtime
        .enable_all()
        .build()?
        .block_on(stock::serve(empty::Empty))
}

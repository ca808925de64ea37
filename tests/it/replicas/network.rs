//! The proxy does to connections what its modes say.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::fixtures::{DEADLINE, Proxy, Traffic};

/// Long enough for a byte to arrive if nothing is in its way; what is held must stay away this long.
const A_WHILE: Duration = Duration::from_millis(100);

/// A server that answers each byte with the next one, behind a proxy.
struct Echo {
    proxy: Proxy,
    /// What arrived at the server; the last is `None` when a connection ended there.
    arrived: mpsc::UnboundedReceiver<Option<u8>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (sender, arrived) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    while let Ok(byte) = connection.read_u8().await {
                        let _ = sender.send(Some(byte));
                        let _ = connection.write_u8(byte + 1).await;
                    }
                    let _ = sender.send(None);
                });
            }
        });
        Self {
            proxy: Proxy::to(address).await,
            arrived,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address).await.unwrap()
    }

    /// A connection that has worked.
    async fn connected(&mut self) -> TcpStream {
        let mut connection = self.connect().await;
        connection.write_u8(1).await.unwrap();
        assert_eq!(answer(&mut connection).await, Ok(2));
        assert_eq!(self.arrives().await, Some(1));
        connection
    }

    async fn arrives(&mut self) -> Option<u8> {
        let arrives = tokio::time::timeout(DEADLINE, self.arrived.recv());
        arrives.await.expect("something arrives").unwrap()
    }

    /// Nothing arrives after these bytes.
    async fn nothing_but(&mut self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(self.arrives().await, Some(*byte));
        }
        self.nothing_arrives().await;
    }

    async fn nothing_arrives(&mut self) {
        let arrives = tokio::time::timeout(A_WHILE, self.arrived.recv());
        assert!(arrives.await.is_err(), "nothing arrives");
    }
}

/// The answer, or how the connection ended.
async fn answer(connection: &mut TcpStream) -> Result<u8, std::io::ErrorKind> {
    let answer = tokio::time::timeout(DEADLINE, connection.read_u8()).await;
    answer
        .expect("an answer, or the end")
        .map_err(|error| error.kind())
}

async fn is_silent(connection: &mut TcpStream) {
    let answer = tokio::time::timeout(A_WHILE, connection.read_u8()).await;
    assert!(answer.is_err(), "it should be silent: {answer:?}");
}

/// Each of these was seen red with `Flows` in place of its mode.
#[tokio::test]
async fn a_cut_ends_connections_and_refuses_new_ones() {
    let mut echo = Echo::start().await;
    for (traffic, end) in [
        (Traffic::Cut, std::io::ErrorKind::UnexpectedEof),
        (Traffic::Reset, std::io::ErrorKind::ConnectionReset),
    ] {
        let mut connection = echo.connected().await;
        echo.proxy.set(traffic);
        assert_eq!(answer(&mut connection).await, Err(end));
        assert_eq!(echo.arrives().await, None, "the server is told too");
        let mut refused = echo.connect().await;
        assert_eq!(answer(&mut refused).await, Err(end));
        echo.proxy.set(Traffic::Flows);
    }
}

/// Seen red without `breaks`: the tasks of the connections then see only what the traffic is now.
#[tokio::test]
async fn a_break_that_is_over_at_once_is_not_missed() {
    let mut echo = Echo::start().await;
    let mut connection = echo.connected().await;
    echo.proxy.set(Traffic::Cut);
    echo.proxy.set(Traffic::Flows);
    let end = answer(&mut connection).await;
    assert_eq!(end, Err(std::io::ErrorKind::UnexpectedEof));
    assert_eq!(echo.arrives().await, None);
    let mut lost = echo.connected().await;
    echo.proxy.set(Traffic::Swallowed);
    echo.proxy.set(Traffic::Flows);
    lost.write_u8(3).await.unwrap();
    is_silent(&mut lost).await;
}

#[tokio::test]
async fn what_is_swallowed_never_arrives() {
    let mut echo = Echo::start().await;
    let mut before = echo.connected().await;
    echo.proxy.set(Traffic::Swallowed);
    let mut meanwhile = echo.connect().await;
    before.write_u8(3).await.unwrap();
    meanwhile.write_u8(5).await.unwrap();
    echo.nothing_arrives().await;
    echo.proxy.set(Traffic::Flows);
    is_silent(&mut before).await;
    is_silent(&mut meanwhile).await;
    echo.nothing_arrives().await;
    echo.connected().await;
    // Only a cut ends the silence.
    echo.proxy.set(Traffic::Cut);
    for silent in [&mut before, &mut meanwhile] {
        // What nobody has read makes it a reset.
        assert!(answer(silent).await.is_err());
    }
}

#[tokio::test]
async fn what_is_held_arrives_late() {
    let mut echo = Echo::start().await;
    let mut before = echo.connected().await;
    echo.proxy.set(Traffic::Held);
    let mut meanwhile = echo.connect().await;
    before.write_u8(3).await.unwrap();
    echo.nothing_arrives().await;
    is_silent(&mut before).await;
    is_silent(&mut meanwhile).await;
    echo.proxy.set(Traffic::Flows);
    assert_eq!(answer(&mut before).await, Ok(4));
    meanwhile.write_u8(5).await.unwrap();
    assert_eq!(answer(&mut meanwhile).await, Ok(6));
    // A client that gave up has still asked.
    echo.proxy.set(Traffic::Held);
    before.write_u8(7).await.unwrap();
    drop(before);
    echo.nothing_but(&[3, 5]).await;
    echo.proxy.set(Traffic::Flows);
    assert_eq!(echo.arrives().await, Some(7));
    assert_eq!(echo.arrives().await, None);
}

#[tokio::test]
async fn one_way_passes_and_the_other_is_held() {
    let mut echo = Echo::start().await;
    let mut connection = echo.connected().await;
    echo.proxy.set(Traffic::AnswersHeld);
    connection.write_u8(3).await.unwrap();
    assert_eq!(echo.arrives().await, Some(3));
    is_silent(&mut connection).await;
    // The answer that was held passes, and the next question does not.
    echo.proxy.set(Traffic::RequestsHeld);
    assert_eq!(answer(&mut connection).await, Ok(4));
    connection.write_u8(5).await.unwrap();
    echo.nothing_arrives().await;
    echo.proxy.set(Traffic::Flows);
    assert_eq!(answer(&mut connection).await, Ok(6));
}

/// Seen red with the two delays exchanged.
#[tokio::test]
async fn each_direction_has_a_delay_of_its_own() {
    let mut echo = Echo::start().await;
    let mut connection = echo.connected().await;
    let [to_server, to_client] = [300, 40].map(Duration::from_millis);
    echo.proxy.set_delays(to_server, to_client);
    let sent = Instant::now();
    connection.write_u8(3).await.unwrap();
    assert_eq!(echo.arrives().await, Some(3));
    assert!(sent.elapsed() >= to_server);
    let arrived = Instant::now();
    assert_eq!(answer(&mut connection).await, Ok(4));
    assert!(sent.elapsed() >= to_server + to_client);
    assert!(arrived.elapsed() < to_server, "the answer travels faster");
}

#[tokio::test]
async fn an_address_that_moves_takes_only_new_connections_with_it() {
    let mut first = Echo::start().await;
    let mut second = Echo::start().await;
    let mut before = first.connected().await;
    first.proxy.lead_to(second.proxy.address);
    let mut after = first.connect().await;
    before.write_u8(3).await.unwrap();
    after.write_u8(5).await.unwrap();
    assert_eq!(first.arrives().await, Some(3));
    assert_eq!(second.arrives().await, Some(5));
    assert_eq!(answer(&mut after).await, Ok(6));
}

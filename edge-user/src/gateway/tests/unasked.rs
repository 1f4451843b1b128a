//! Answers that nobody asked for (response queue poisoning): an origin that was made to answer once more than it was
//! asked, now or later. Whoever comes next must get the answer to what it asked.

use std::{
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use super::support::{Edge, Origin, OriginConnection};

const UNASKED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";

/// Answers with the target; behind the answer to `/attack` comes one that was not asked for, after this long. Says when
/// it lies in the gateway's socket.
fn origin(after: Duration) -> (Origin, mpsc::Receiver<()>) {
    let (said, told) = mpsc::channel();
    let said = Mutex::new(said);
    let origin = Origin::with(move |connection: &mut OriginConnection| {
        while let Some(seen) = connection.request() {
            let target = seen.line().split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}",
                target.len()
            );
            connection.send(answer.as_bytes());
            if target == "/attack" {
                thread::sleep(after);
                connection.send(UNASKED);
                let _ = said.lock().unwrap().send(());
            }
        }
    });
    (origin, told)
}

#[test]
fn an_answer_that_nobody_asked_for_is_nobodys() {
    for after in [0, 1, 50].map(Duration::from_millis) {
        let (origin, told) = origin(after);
        let edge = Edge::to(origin.address);
        let mut attacker = edge.connect();
        for round in 0..5 {
            assert_eq!(attacker.get("/attack").body, "/attack", "{after:?}");
            told.recv().expect("sent");
            // Of somebody else, and of the one who was there.
            let response = if round % 2 == 0 {
                edge.connect().get("/victim")
            } else {
                attacker.get("/victim")
            };
            assert_eq!(
                (response.status, response.body.as_str()),
                (200, "/victim"),
                "{after:?}, round {round}"
            );
        }
    }
}

#[test]
fn whoever_sends_a_body_gets_its_own_answer_too() {
    let (origin, told) = origin(Duration::ZERO);
    let edge = Edge::to(origin.address);
    for _ in 0..5 {
        assert_eq!(edge.connect().get("/attack").body, "/attack");
        told.recv().expect("sent");
        let mut victim = edge.connect();
        victim.send(b"POST /victim HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(victim.response().body, "/victim");
        assert_eq!(origin.last().body, b"hello");
    }
}

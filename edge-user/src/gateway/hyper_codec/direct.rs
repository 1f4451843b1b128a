//! Requests over HTTP/2 whose upstream speaks HTTP/1: sent and answered by the codec by bytes, over its connections.
//!
//! Only what has no body goes this way; what else it does not do is what that codec declines
//! ([`Plan::wants_hyper`](crate::gateway::plan::Plan::wants_hyper)).

use std::{
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::Frame;

use super::{
    DIALECT,
    body::{InFlight, ResponseBody},
    body_error::BodyError,
    forward::Outgoing,
    head::HeaderMapSink,
};
use crate::gateway::{
    balance::Target,
    exchange::Exchange,
    gate::{RequestBody, Version, response::Asked},
    h1_codec::{AnswerBody, Piece, Question, ask},
    header_policy::{self, Dialect},
    refusal::{Reason, Refusal},
};

/// Whether a request goes this way.
pub(super) fn takes(exchange: &Exchange, target: &Target, outgoing: &Outgoing<'_>) -> bool {
    let request = &outgoing.request;
    request.version() == Version::Http2
        && request.judged().body == RequestBody::None
        && !request.judged().websocket
        && !exchange.site().plan().wants_hyper(target.route())
}

/// Sends a request to its target; answers with the response whose body is still to come.
pub(super) async fn forward(
    mut exchange: Box<Exchange>,
    target: &mut Target,
    outgoing: &Outgoing<'_>,
    in_flight: InFlight,
) -> Result<Response<ResponseBody>, (Refusal, Box<Exchange>)> {
    let question = question(&exchange, target, outgoing);
    let asked = ask(
        &mut exchange,
        target,
        &question,
        |exchange, target, head, shape, judged| {
            let mut sink = HeaderMapSink(HeaderMap::with_capacity(shape.fields.len() + 2));
            let changes = target.permit().changes();
            header_policy::response(&mut sink, head, shape, judged, changes, DIALECT);
            exchange.tell(&mut sink);
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(shape.status).unwrap_or(StatusCode::BAD_GATEWAY);
            *response.headers_mut() = sink.0;
            response
        },
    )
    .await;
    exchange.worker().h1().put_buffer(question.head);
    let (response, body) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return Err((refusal, exchange)),
    };
    let begun = Instant::now();
    exchange.ended(begun, Duration::ZERO);
    // Until it is asked for, it is the client's window that it waits for.
    in_flight.blocked(true);
    let body = Direct {
        body,
        exchange,
        in_flight,
        begun,
    };
    Ok(response.map(|()| ResponseBody::Direct(Box::new(body))))
}

/// The request as it is written to an upstream.
fn question(exchange: &Exchange, target: &Target, outgoing: &Outgoing<'_>) -> Question {
    let request = &outgoing.request;
    let (site, worker) = (exchange.site(), exchange.worker());
    let route = site.plan().route(target.route());
    let mut head = worker.h1().take_buffer();
    head.extend_from_slice(request.method());
    head.push(b' ');
    header_policy::put_target(&mut head, request, target.permit());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    header_policy::request(
        &mut head,
        site.plan(),
        request,
        target.permit(),
        outgoing.provenance,
        exchange.id().as_bytes(),
        Dialect {
            framing: true,
            ..DIALECT
        },
    );
    head.extend_from_slice(b"\r\n");
    Question {
        head,
        asked: Asked {
            head: request.method() == b"HEAD",
            websocket: false,
        },
        repeatable: request.is_idempotent(),
        timeout: target.try_timeout(route.timeout),
        idle: route.idle_timeout.unwrap_or(worker.limits().stall_timeout),
        deadline: exchange.deadline(target.route()),
        client: outgoing.provenance.client.ends(),
    }
}

/// A response body that comes this way.
pub(super) struct Direct {
    body: AnswerBody,
    exchange: Box<Exchange>,
    in_flight: InFlight,
    begun: Instant,
}

impl Direct {
    /// The next frame.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.in_flight.blocked(false);
        let late = !self.body.is_over() && self.body.is_late();
        let piece = if late {
            self.body.give_up();
            Some(Err(Reason::RequestTimeout))
        } else {
            ready!(self.body.poll(context))
        };
        Poll::Ready(match piece {
            None => None,
            Some(Ok(Piece::Data(data))) => {
                self.in_flight.blocked(true);
                self.exchange.returned(data.len() as u64);
                Some(Ok(Frame::data(data)))
            }
            Some(Ok(Piece::Trailers(lines))) => Some(Ok(Frame::trailers(trailers(&lines)))),
            Some(Err(reason)) => {
                self.exchange.broke(reason);
                Some(Err(match reason {
                    Reason::RequestTimeout => BodyError::Late,
                    Reason::UpstreamStalled => BodyError::Stalled,
                    _ => BodyError::cancelled(),
                }))
            }
        })
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_over()
    }

    /// How many bytes are to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.body.left()
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        if self.body.is_over() {
            let now = Instant::now();
            // What a streaming body waits for is not told apart here: none of its time counts as the proxy's own.
            self.exchange.ended(now, now - self.begun);
        } else if let Some(reason) = self.in_flight.stalled() {
            // The client went away, or stopped reading.
            self.exchange.broke(reason);
        }
    }
}

/// Trailers from their lines, which passed the gate.
fn trailers(lines: &[Vec<u8>]) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    fields
}

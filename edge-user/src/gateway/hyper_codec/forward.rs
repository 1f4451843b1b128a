//! The last stage, by hyper: sends what a [`Target`] admits, and takes the answer.

use std::{
    error::Error,
    io,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, uri::Authority};
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio::time::{sleep_until, timeout};

use super::{
    DIALECT,
    body::{FromUpstream, InFlight, RequestBody, ResponseBody, Returning, Source},
    client::{self, Acquired},
    compress,
    gated_io::ConnectionState,
    head::{self, HeaderMapSink},
};
use crate::{
    config::Coding,
    gateway::{
        balance::Target,
        exchange::Exchange,
        gate::{self, Request, Version, response},
        header_policy::{self, Dialect},
        provenance::Provenance,
        refusal::{Reason, Refusal},
    },
    upstream::circuit::Permit,
};

/// What the forwarded head is made from.
pub(super) struct Outgoing<'a> {
    pub(super) request: Request<'a>,
    pub(super) provenance: &'a Provenance,
    pub(super) state: &'a Rc<ConnectionState>,
}

/// Sends a request to its target; answers with the response whose body is still to come.
///
/// It is sent again only where that does no harm: what was provably not sent may go to the next endpoint; what may
/// have been seen only if the method is idempotent (RFC 9110, 9.2.2), the body is there to be repeated, and the
/// upstream's retry budget pays for it.
pub(super) async fn forward(
    exchange: &mut Exchange,
    target: &mut Target,
    outgoing: &Outgoing<'_>,
    body: Option<Incoming>,
) -> Result<(Response<Incoming>, Returning), Refusal> {
    let site = Rc::clone(exchange.site());
    let cluster = Arc::clone(target.cluster());
    let policy = &cluster.config().retry;
    let route = site.plan().route(target.route());
    let limits = exchange.worker().limits();
    let source = Source::new(
        body,
        &limits,
        route.body_limit.or(limits.body),
        policy
            .buffer_bytes
            .max(route.mirror.as_ref().map_or(0, |mirror| mirror.body_bytes)) as usize,
        site.identity_fields(),
        Rc::clone(outgoing.state),
    );
    let idempotent = outgoing.request.is_idempotent();
    let limit = route.timeout;
    let client = outgoing.provenance.client.ends();
    let mut next = target.attempt(false, Instant::now())?;
    let mut fresh = false;
    let mut retry = Permit::default();
    loop {
        let Acquired {
            attempt,
            mut link,
            reused,
        } = client::acquire(exchange, target, client, next, fresh).await?;
        let message = build(exchange, target, outgoing, &source, link.is_http2())?;
        let sent = Instant::now();
        exchange.sent(sent);
        let answer = within(target.try_timeout(limit), &source, link.send(message, reused)).await;
        let now = Instant::now();
        let failed = match answer {
            Ok(Some(Ok(answer))) => {
                let status = answer.status().as_u16();
                attempt.answered(status, now - sent, now);
                let again = policy.statuses.contains(&status) && idempotent && source.is_repeatable();
                if !again || !target.may_retry() {
                    let returning = Returning {
                        attempt,
                        link: Some(link),
                        reusable: false,
                        request: source,
                        _retry: retry,
                    };
                    return Ok((answer, returning));
                }
                drop(answer);
                Failed {
                    again: true,
                    ..Failed::before_answer(Reason::UpstreamReset)
                }
            }
            Ok(Some(Err(_))) if link.was_unasked() => Failed::unsent(),
            Ok(Some(Err(error))) => Failed::judge(error),
            Ok(None) => Failed::unsent(),
            Err(Elapsed) => Failed::before_answer(Reason::UpstreamTimeout),
        };
        tracing::debug!(reason = failed.reason.slug(), endpoint = %attempt.endpoint().address(), reused, "no answer");
        drop(link);
        if outgoing.state.body_fault.get().is_some() {
            return Err(fault(outgoing.state, failed.reason));
        }
        let harmless = source.is_repeatable()
            && match failed.seen {
                Seen::No => true,
                Seen::Perhaps => idempotent,
                Seen::Answered => false,
            };
        // A connection that died while it was idle is no fault of the endpoint, and no reason to fail a request.
        if reused && !fresh && harmless && failed.reason == Reason::UpstreamReset && !failed.again {
            site.counters().retried();
            (next, fresh) = (attempt, true);
            continue;
        }
        if !failed.again {
            attempt.failed();
        }
        drop(attempt);
        drop(std::mem::take(&mut retry));
        let other = harmless.then(|| target.retry(failed.again, now)).flatten();
        (next, retry) = other.ok_or_else(|| fault(outgoing.state, failed.reason))?;
        site.counters().retried();
        fresh = false;
    }
}

/// What an upstream may have seen of a request that it did not answer.
enum Seen {
    /// Nothing: it is provably unsent, or was refused unprocessed.
    No,
    /// Some or all of it.
    Perhaps,
    /// All of it; it answered, if unreadably.
    Answered,
}

/// A try without a usable answer.
struct Failed {
    reason: Reason,
    seen: Seen,
    /// The endpoint may be tried once more: it answered, and asked for patience.
    again: bool,
}

impl Failed {
    fn before_answer(reason: Reason) -> Self {
        Self {
            reason,
            seen: Seen::Perhaps,
            again: false,
        }
    }

    fn unsent() -> Self {
        Self {
            reason: Reason::UpstreamReset,
            seen: Seen::No,
            again: false,
        }
    }

    fn judge(mut error: TrySendError<http::Request<RequestBody>>) -> Self {
        if error.take_message().is_some() {
            return Self::unsent();
        }
        let error = error.error();
        let is_refused = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>())
            .is_some_and(|error| error.kind() == io::ErrorKind::InvalidData);
        // Of hyper's parser, or of the gate before it.
        if error.is_parse() || is_refused {
            return Self {
                reason: Reason::UpstreamMalformed,
                seen: Seen::Answered,
                again: false,
            };
        }
        match error
            .source()
            .and_then(|source| source.downcast_ref::<h2::Error>())
        {
            // RFC 9113, 8.7: neither was processed.
            Some(error) if error.reason() == Some(h2::Reason::REFUSED_STREAM) => Self::unsent(),
            Some(error)
                if error.is_go_away()
                    && error.is_remote()
                    && error.reason() == Some(h2::Reason::NO_ERROR) =>
            {
                Self::unsent()
            }
            _ => Self::before_answer(Reason::UpstreamReset),
        }
    }
}

/// The upstream did not answer in time.
struct Elapsed;

/// Waits for an answer. The limit begins anew while the request's body moves: it is for the upstream's thinking, not
/// for the transfer.
async fn within<F: Future>(limit: Duration, body: &Source, answer: F) -> Result<F::Output, Elapsed> {
    let mut answer = pin!(answer);
    loop {
        let before = body.bytes();
        match timeout(limit, answer.as_mut()).await {
            Ok(answer) => return Ok(answer),
            Err(_) if body.bytes() != before => {}
            Err(_) => return Err(Elapsed),
        }
    }
}

/// A fault of the client's body explains a failed request before the upstream does.
fn fault(state: &ConnectionState, otherwise: Reason) -> Refusal {
    state.body_fault.take().unwrap_or(otherwise).into()
}

/// Builds the forwarded request by the header policy.
fn build(
    exchange: &Exchange,
    target: &Target,
    outgoing: &Outgoing<'_>,
    source: &Rc<Source>,
    http2: bool,
) -> Result<http::Request<RequestBody>, Refusal> {
    let request = &outgoing.request;
    let mut path = Vec::with_capacity(request.path().len() + 64);
    header_policy::put_target(&mut path, request, target.permit());
    let mut sink = HeaderMapSink(HeaderMap::with_capacity(24));
    header_policy::request(
        &mut sink,
        exchange.site().plan(),
        request,
        target.permit(),
        outgoing.provenance,
        exchange.id().as_bytes(),
        Dialect {
            // Of HTTP/1's handshakes hyper's codec passes none on; the byte codec does.
            upgrade: request.version() == Version::Http2 && !http2,
            ..DIALECT
        },
    );
    let unsent = |_| Refusal::because(Reason::BadTarget, "not representable");
    let mut message = http::Request::new(RequestBody::new(source));
    *message.method_mut() = Method::from_bytes(request.method()).map_err(|_| Reason::BadSyntax)?;
    let target_uri = Uri::try_from(path).map_err(unsent)?;
    *message.uri_mut() = if http2 {
        let scheme = if target.cluster().tls().is_some() {
            "https"
        } else {
            "http"
        };
        // The authority is a pseudo-field there (RFC 9113, 8.3.1), and what is said about a connection is nothing.
        sink.0.remove(header::CONNECTION);
        let host = sink.0.remove(header::HOST);
        let mut parts = target_uri.into_parts();
        parts.scheme = scheme.parse().ok();
        parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        Uri::from_parts(parts).map_err(|_| Refusal::because(Reason::BadTarget, "not representable"))?
    } else {
        // hyper takes a GET without a length for one without a body.
        if request.judged().body == gate::RequestBody::Chunked {
            sink.0
                .insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        target_uri
    };
    *message.headers_mut() = sink.0;
    Ok(message)
}

/// Turns the upstream's answer into the client's, once it has passed the gate.
pub(super) fn respond(
    mut exchange: Box<Exchange>,
    target: &Target,
    (asked, wanted): (response::Asked, Option<Coding>),
    answer: Response<Incoming>,
    mut returning: Returning,
    in_flight: InFlight,
) -> Result<Response<ResponseBody>, Box<(Refusal, Box<Exchange>)>> {
    let (parts, inner) = answer.into_parts();
    let laid = head::response(&parts);
    let judged = match response::judge(&laid.bytes, &laid.shape, asked) {
        Ok(judged) => judged,
        Err(refusal) => return Err(Box::new((refusal, exchange))),
    };
    let mut sink = HeaderMapSink(HeaderMap::with_capacity(parts.headers.len()));
    header_policy::response(
        &mut sink,
        &laid.bytes,
        &laid.shape,
        &judged,
        target.permit().changes(),
        DIALECT,
    );
    exchange.tell(&mut sink);
    let status = StatusCode::from_u16(laid.shape.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let offered = exchange.site().plan().route(target.route()).compress.as_ref();
    let has_body = judged.body != gate::ResponseBody::None;
    let coded = offered.and_then(|offered| compress::begin(offered, wanted, status, has_body, &mut sink.0));
    let begun = Instant::now();
    exchange.ended(begun, Duration::ZERO);
    returning.reusable = judged.keep_alive;
    // Until it is asked for, it is the client's window that it waits for.
    in_flight.blocked(true);
    let route = exchange.site().plan().route(target.route());
    let stall_limit = route
        .idle_timeout
        .unwrap_or(exchange.worker().limits().stall_timeout);
    let deadline = exchange.deadline(target.route());
    let body = FromUpstream {
        inner,
        exchange,
        returning,
        stall_limit,
        stall: None,
        deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline.into()))),
        begun,
        in_flight,
        coded: coded.map(Box::new),
    };
    let mut response = Response::new(ResponseBody::Upstream(Box::new(body)));
    *response.status_mut() = status;
    *response.headers_mut() = sink.0;
    Ok(response)
}

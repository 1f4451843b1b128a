//! The last stage, by hyper: sends what a [`Target`] admits, and takes the answer.

use std::{
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::{sleep_until, timeout};

use super::{
    DIALECT,
    body::{FromUpstream, InFlight, Progress, RequestBody, ResponseBody, Returning},
    client::{self, Acquired},
    gated_io::ConnectionState,
    head::{self, HeaderMapSink},
};
use crate::gateway::{
    balance::Target,
    exchange::Exchange,
    gate::{Request, response},
    header_policy,
    provenance::Provenance,
    refusal::{Reason, Refusal},
};

/// What the forwarded head is made from.
pub(super) struct Outgoing<'a> {
    pub(super) request: Request<'a>,
    pub(super) provenance: &'a Provenance,
    pub(super) state: &'a Rc<ConnectionState>,
}

/// Sends a request to its target; answers with the response whose body is still to come.
pub(super) async fn forward(
    exchange: &mut Exchange,
    target: &Target,
    outgoing: &Outgoing<'_>,
    body: Option<Incoming>,
) -> Result<(Response<Incoming>, Returning), Refusal> {
    let site = Rc::clone(exchange.site());
    let limits = exchange.worker().limits();
    let body = RequestBody::new(body, limits, Rc::clone(outgoing.state))
        .at_most(site.plan().route(target.route()).body_limit);
    let progress = body.progress();
    let repeatable = progress.done.get() && outgoing.request.is_idempotent();
    let mut message = build(exchange, target, outgoing, body)?;
    let mut fresh = false;
    loop {
        let Acquired {
            mut connection,
            endpoint,
            reused,
        } = client::acquire(exchange, target, fresh).await?;
        let answer = connection.try_send_request(message);
        exchange.sent(Instant::now());
        let limit = site.plan().route(target.route()).timeout;
        let mut error = match within(limit, &progress, answer).await {
            Ok(Ok(answer)) => {
                let returning = Returning {
                    worker: Rc::clone(exchange.worker()),
                    endpoint,
                    connection: Some(connection),
                    reusable: false,
                    request: progress,
                };
                return Ok((answer, returning));
            }
            Ok(Err(error)) => error,
            Err(Elapsed) => return Err(fault(outgoing.state, Reason::UpstreamTimeout)),
        };
        // A connection that died while it was idle is no reason to fail a request: it is sent once more if hyper
        // hands it back unsent, or if sending it twice does no harm and the first time brought no answer.
        let unsent = error.take_message();
        let parsed = error.error().is_parse();
        tracing::debug!(error = %error.error(), %endpoint, reused, "no answer");
        message = match unsent {
            Some(message) if reused && !fresh => message,
            None if reused && !fresh && repeatable && !parsed => build(
                exchange,
                target,
                outgoing,
                RequestBody::new(None, exchange.worker().limits(), Rc::clone(outgoing.state)),
            )?,
            _ if parsed => return Err(fault(outgoing.state, Reason::UpstreamMalformed)),
            _ => return Err(fault(outgoing.state, Reason::UpstreamReset)),
        };
        fresh = true;
        site.counters().retried();
    }
}

/// The upstream did not answer in time.
struct Elapsed;

/// Waits for an answer. The limit begins anew while the request's body moves: it is for the upstream's thinking, not
/// for the transfer.
async fn within<F: Future>(limit: Duration, body: &Progress, answer: F) -> Result<F::Output, Elapsed> {
    let mut answer = pin!(answer);
    loop {
        let before = body.bytes.get();
        match timeout(limit, answer.as_mut()).await {
            Ok(answer) => return Ok(answer),
            Err(_) if body.bytes.get() != before => {}
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
    body: RequestBody,
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
        DIALECT,
    );
    let unsent = |_| Refusal::because(Reason::BadTarget, "not representable");
    let mut message = http::Request::new(body);
    *message.method_mut() = Method::from_bytes(request.method()).map_err(|_| Reason::BadSyntax)?;
    *message.uri_mut() = Uri::try_from(path).map_err(unsent)?;
    *message.headers_mut() = sink.0;
    Ok(message)
}

/// Turns the upstream's answer into the client's, once it has passed the gate.
pub(super) fn respond(
    mut exchange: Exchange,
    target: &Target,
    asked: response::Asked,
    answer: Response<Incoming>,
    mut returning: Returning,
    in_flight: InFlight,
) -> Result<Response<ResponseBody>, Box<(Refusal, Exchange)>> {
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
    };
    let mut response = Response::new(ResponseBody::Upstream(Box::new(body)));
    *response.status_mut() = StatusCode::from_u16(laid.shape.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = sink.0;
    Ok(response)
}

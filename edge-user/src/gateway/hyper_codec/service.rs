//! From hyper's request to hyper's response: gate, stages, forward.

use std::{convert::Infallible, rc::Rc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::timeout_at;

use super::{
    beside,
    body::{InFlight, ResponseBody},
    connect, direct,
    forward::{self, Outgoing},
    gated_io::ConnectionState,
    head::{self, HeaderMapSink},
    websocket::Handshake,
};
use crate::config::Coding;
use crate::gateway::{
    answer::Reply,
    authenticate::Permit,
    balance::Target,
    coding,
    exchange::Exchange,
    fan_out::Part,
    gate::{
        Field, FieldKind, HeadLimits, JudgedRequest, Request, RequestBody, RequestShape, Version, request,
        response::Asked,
    },
    header_policy::FieldSink,
    limits::Codec,
    provenance::Provenance,
    refusal::{Reason, Refusal},
    route::RouteId,
    stages::Decision,
    worker::Worker,
};

/// Answers one request.
pub(super) async fn answer(
    worker: Rc<Worker>,
    state: Rc<ConnectionState>,
    provenance: Rc<Provenance>,
    version: Version,
    mut request: http::Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    // Boxed: it is handed from stage to stage, and is not small.
    let mut exchange = Box::new(Exchange::begin(&worker, &provenance.client, Instant::now()));
    let in_flight = InFlight::new(&state);
    if let Some(refusal) = state.head_refusal.take() {
        return Ok(refuse(exchange, &state, refusal));
    }
    let upgrade = Handshake::of(&mut request);
    let tunnel = connect::asks(&mut request, version);
    let (mut parts, body) = request.into_parts();
    let handshake = match upgrade
        .map(|client| Handshake::begin(&mut parts, client))
        .transpose()
    {
        Ok(handshake) => handshake,
        Err(refusal) => return Ok(refuse(exchange, &state, refusal)),
    };
    let laid = head::request(&parts, version);
    drop(parts);
    let rules = exchange.site().plan().path_rules();
    let judged = too_large(&laid.shape, &worker.limits().head)
        .and_then(|()| request::judge_by(&laid.bytes, &laid.shape, rules));
    let mut judged = match judged {
        Ok(judged) => judged,
        Err(refusal) => return Ok(refuse(exchange, &state, refusal)),
    };
    find_body(&mut judged, version, handshake.is_some(), &body);
    state.http10.set(laid.shape.version == Version::Http10);
    state
        .has_body
        .set(version != Version::Http2 && judged.body != RequestBody::None);
    let request = Request::new(&laid.bytes, &laid.shape, &judged);
    let outgoing = Outgoing {
        request,
        provenance: &provenance,
        state: &state,
    };
    let mut target = match worker
        .decide(&mut exchange, &request, &provenance, Codec::Hyper)
        .await
    {
        Ok(Decision::Forward(target)) => target,
        // This codec declines nothing.
        Ok(Decision::Declined) => return Ok(refuse(exchange, &state, Reason::Overloaded.into())),
        Ok(Decision::FanOut(permit, parts)) => {
            return Ok(merged(exchange, &state, &permit, &outgoing, parts).await);
        }
        Ok(Decision::Reply(reply)) => {
            let is_head = request.method() == b"HEAD";
            return Ok(self::reply(exchange, &state, reply, is_head));
        }
        Err(refusal) => return Ok(refuse(exchange, &state, refusal)),
    };
    state.has_body.set(false);
    if judged.connect {
        let answered = match tunnel {
            Some(client) => Box::pin(connect::answer(exchange, target, client, &outgoing, in_flight)).await,
            // The gate lets none by over HTTP/1.
            None => Err((Reason::MethodNotServed.into(), exchange)),
        };
        return Ok(answered.unwrap_or_else(|(refusal, exchange)| refuse(exchange, &state, refusal)));
    }
    if direct::takes(&exchange, &target, &outgoing) {
        let answered = direct::forward(exchange, &mut target, &outgoing, in_flight).await;
        return Ok(answered.unwrap_or_else(|(refusal, exchange)| refuse(exchange, &state, refusal)));
    }
    let body = (judged.body != RequestBody::None).then_some(body);
    // Boxed: it takes more room than all of what comes before, and most requests do not go this way.
    Ok(Box::pin(by_hyper(exchange, target, &outgoing, body, handshake, in_flight)).await)
}

/// Forwards a request by hyper's client, and answers with what comes back.
async fn by_hyper(
    mut exchange: Box<Exchange>,
    mut target: Target,
    outgoing: &Outgoing<'_>,
    body: Option<Incoming>,
    handshake: Option<Handshake>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let (request, state) = (&outgoing.request, outgoing.state);
    let deadline = exchange.deadline(target.route());
    let forwarded = forward::forward(&mut exchange, &mut target, outgoing, body);
    let (response, returning) = match in_time(deadline, forwarded).await {
        Ok(answered) => answered,
        Err(refusal) => return refuse(exchange, state, refusal),
    };
    exchange.answered(Instant::now(), response.status().as_u16());
    beside::mirror(&exchange, &target, outgoing, &returning.request);
    let answered = if let Some(handshake) = handshake
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        exchange.answered(Instant::now(), 200);
        let changes = target.permit().changes();
        handshake.join(exchange, changes, response, returning, in_flight)
    } else {
        let asked = Asked {
            head: request.method() == b"HEAD",
            websocket: false,
        };
        let wanted = wanted(&exchange, target.route(), request);
        // A client that is still sending is told that nothing after its body will be looked at (RFC 9112, 9.6).
        let closes = request.version() != Version::Http2
            && (exchange.worker().is_leaving() || !returning.request.is_done());
        forward::respond(exchange, &target, (asked, wanted), response, returning, in_flight).map(
            |mut response| {
                if closes {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                response
            },
        )
    };
    answered.unwrap_or_else(|refused| {
        let (refusal, mut exchange) = *refused;
        exchange.unanswered();
        refuse(exchange, state, refusal)
    })
}

/// Notes whether there is a body, where the head does not tell.
fn find_body(judged: &mut JudgedRequest, version: Version, is_handshake: bool, body: &Incoming) {
    if is_handshake {
        // What comes after the head is not a body.
        judged.websocket = true;
    } else if version == Version::Http2
        && judged.body == RequestBody::None
        && !hyper::body::Body::is_end_stream(body)
    {
        // HTTP/2 frames its bodies; one of unknown length is chunked in HTTP/1.
        judged.body = RequestBody::Chunked;
    }
}

/// Waits for something that has to be over at `deadline`.
async fn in_time<T>(
    deadline: Option<Instant>,
    something: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    match deadline {
        Some(deadline) => timeout_at(deadline.into(), something)
            .await
            .unwrap_or_else(|_| Err(Reason::RequestTimeout.into())),
        None => something.await,
    }
}

/// What the gate would find before parsing, where there was no gate. Cookies count once, as HTTP/2 clients split them.
fn too_large(shape: &RequestShape, limits: &HeadLimits) -> Result<(), Refusal> {
    let is_cookie = |field: &&Field| field.kind == FieldKind::Cookie;
    let cookies = shape.fields.iter().filter(is_cookie).count();
    if shape.target.end() - shape.target.start() > limits.target {
        Err(Reason::TargetTooLong.into())
    } else if shape.fields.len() - cookies.saturating_sub(1) > limits.fields {
        Err(Reason::HeadTooLarge.into())
    } else {
        Ok(())
    }
}

/// How the client wants the route's answers coded.
fn wanted(exchange: &Exchange, route: RouteId, request: &Request<'_>) -> Option<Coding> {
    let offered = exchange.site().plan().route(route).compress.as_ref()?;
    coding::negotiate(offered, request)
}

/// Answers with what several services say.
async fn merged(
    exchange: Box<Exchange>,
    state: &ConnectionState,
    permit: &Permit,
    outgoing: &Outgoing<'_>,
    parts: Vec<Part>,
) -> Response<ResponseBody> {
    let merged = match exchange.route() {
        Some(route) => beside::fan_out(&exchange, route, permit, outgoing, parts).await,
        None => Err(Reason::NoRoute.into()),
    };
    match merged {
        Ok(reply) => self::reply(exchange, state, reply, outgoing.request.method() == b"HEAD"),
        Err(refusal) => refuse(exchange, state, refusal),
    }
}

/// Turns an answer of this gateway's own into a response.
fn reply(
    mut exchange: Box<Exchange>,
    state: &ConnectionState,
    reply: Reply,
    is_head: bool,
) -> Response<ResponseBody> {
    let mut sink = HeaderMapSink(HeaderMap::with_capacity(reply.fields.len() + 2));
    for (name, value) in &reply.fields {
        sink.put(name.as_bytes(), value);
    }
    exchange.tell(&mut sink);
    exchange.answered(Instant::now(), reply.status);
    if !is_head {
        exchange.returned(reply.body.len() as u64);
    }
    exchange.ended(Instant::now(), std::time::Duration::ZERO);
    let mut response = Response::new(ResponseBody::Own(Full::new(reply.body)));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = sink.0;
    if state.has_body.get() {
        close(&mut response, state);
    }
    response
}

/// Has the connection end behind an answer, and says so.
fn close(response: &mut Response<ResponseBody>, state: &ConnectionState) {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    state.refused.set(true);
}

/// Turns a refusal into a response.
fn refuse(mut exchange: Box<Exchange>, state: &ConnectionState, refusal: Refusal) -> Response<ResponseBody> {
    let body = refusal.body(exchange.id().as_str(), exchange.form());
    let mut response = Response::new(ResponseBody::Own(Full::new(Bytes::from(body))));
    *response.status_mut() =
        StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(exchange.form().media_type()),
    );
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    for (name, value) in &refusal.fields {
        // What no field may hold is left out: the status says the most of it.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    if refusal.reason.closes() || state.has_body.get() {
        close(&mut response, state);
    }
    exchange.refused(refusal);
    exchange.ended(Instant::now(), std::time::Duration::ZERO);
    response
}

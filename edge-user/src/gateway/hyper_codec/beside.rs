//! What a route has asked beside the request itself: the parts of a merged answer, and copies to a mirror.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, header};
use tokio::task::spawn_local;

use super::{DIALECT, body::Source, forward::Outgoing, head::HeaderMapSink, side::Side};
use crate::{
    config::bounds,
    gateway::{
        answer::Reply,
        authenticate::Permit,
        balance::Target,
        exchange::Exchange,
        fan_out::{self, Part},
        header_policy,
        refusal::{Reason, Refusal},
        route::RouteId,
    },
};

/// How long a mirror may take for its answer, which nobody waits for.
const MIRROR_LIMIT: Duration = Duration::from_secs(30);

/// Most bytes of a mirror's answer that are read before its connection is cut.
const MIRROR_ANSWER: usize = 1024 * 1024;

/// Fields that ask for another answer than the whole, plain one.
const NOT_FOR_PARTS: [header::HeaderName; 10] = [
    header::ACCEPT_ENCODING,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TE,
];

/// The forwarded header of a request, by the header policy.
fn headers(exchange: &Exchange, permit: &Permit, outgoing: &Outgoing<'_>) -> HeaderMap {
    let mut sink = HeaderMapSink(HeaderMap::with_capacity(24));
    header_policy::request(
        &mut sink,
        exchange.site().plan(),
        &outgoing.request,
        permit,
        outgoing.provenance,
        exchange.id().as_bytes(),
        DIALECT,
    );
    // Only for the next hop, and each of these has its own.
    sink.0.remove(header::CONNECTION);
    sink.0
}

/// Asks for every part at once, and merges the answers.
pub(super) async fn fan_out(
    exchange: &Exchange,
    route: RouteId,
    permit: &Permit,
    outgoing: &Outgoing<'_>,
    parts: Vec<Part>,
) -> Result<Reply, Refusal> {
    let mut headers = headers(exchange, permit, outgoing);
    for name in NOT_FOR_PARTS {
        headers.remove(name);
    }
    let mut target = Vec::new();
    header_policy::put_target(&mut target, &outgoing.request, permit);
    let query = memchr::memchr(b'?', &target).map_or(&[][..], |at| &target[at..]);
    let limit = exchange.site().plan().route(route).timeout;
    let asked = parts.into_iter().map(|part| {
        let side = Side {
            worker: Rc::clone(exchange.worker()),
            chooser: part.chooser,
            client: outgoing.provenance.client.ends(),
            method: Method::GET,
            target: [part.path.as_bytes(), query].concat(),
            headers: headers.clone(),
            body: Bytes::new(),
            limit,
            most: bounds::MAX_FAN_OUT_BYTES,
        };
        async move {
            let answer = match side.ask().await {
                Ok((200..=299, body)) => fan_out::as_part(&body).ok_or(Reason::UpstreamMalformed),
                Ok(_) => Err(Reason::PartFailed),
                Err(reason) => Err(reason),
            };
            (part.key, part.required, answer)
        }
    });
    let mut merged: Vec<(Arc<str>, Option<Bytes>)> = Vec::new();
    for (key, required, answer) in join_all(asked).await {
        match answer {
            Ok(body) => merged.push((key, Some(body))),
            Err(reason) => {
                tracing::debug!(key = %key, reason = reason.slug(), "part failed");
                if required {
                    return Err(Refusal::because(Reason::PartFailed, reason.slug()));
                }
                merged.push((key, None));
            }
        }
    }
    let mut reply = fan_out::merge(&merged);
    if let Some(changes) = permit.changes() {
        changes.amend(&mut reply);
    }
    Ok(reply)
}

/// Sends a copy of a request that was answered to the route's mirror, if it is its turn. Nobody waits for it.
pub(super) fn mirror(exchange: &Exchange, target: &Target, outgoing: &Outgoing<'_>, body: &Rc<Source>) {
    let site = exchange.site();
    let Some(mirror) = &site.plan().route(target.route()).mirror else {
        return;
    };
    // Ids are spread evenly, and the same request has the same fate on every look.
    let id = u64::from_str_radix(exchange.id().as_str(), 16).unwrap_or_default();
    if id % 100 >= u64::from(mirror.percent) {
        return;
    }
    let copied = if body.is_empty() {
        Some(Bytes::new())
    } else {
        body.copy()
    };
    let copied = copied.filter(|body| body.len() <= mirror.body_bytes as usize);
    let (Some(body), Some(chooser), Ok(method)) = (
        copied,
        site.choosers().of(mirror.upstream),
        Method::from_bytes(outgoing.request.method()),
    ) else {
        site.counters().mirrored(false);
        return;
    };
    let mut path = Vec::new();
    header_policy::put_target(&mut path, &outgoing.request, target.permit());
    let mut headers = headers(exchange, target.permit(), outgoing);
    headers.remove(header::TE);
    headers.remove(header::TRANSFER_ENCODING);
    let copy = Side {
        worker: Rc::clone(exchange.worker()),
        chooser,
        client: outgoing.provenance.client.ends(),
        method,
        target: path,
        headers,
        body,
        limit: MIRROR_LIMIT,
        most: MIRROR_ANSWER,
    };
    let site = Rc::clone(site);
    spawn_local(async move {
        let sent = copy.ask().await;
        // What it answers is nobody's business; that there was no room for it is the operator's.
        site.counters().mirrored(!matches!(sent, Err(Reason::Overloaded)));
    });
}

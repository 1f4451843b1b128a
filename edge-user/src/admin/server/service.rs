//! One request: let in, read within bounds, answered.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::guard::Guard;
use crate::admin::{
    api::{self, Answer, Asked},
    context::{Context, Turned},
    dashboard,
    problem::Problem,
    router::{self, Serves},
};

/// Bytes of a request's body.
pub(super) const BODY_BYTES: usize = 64 * 1024;
/// A request's body, from its head on.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a request.
pub(super) async fn serve(
    request: Request<Incoming>,
    serves: Serves,
    guard: &Guard,
    context: &Arc<Context>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let let_in = guard.check(request.headers());
    if serves.all
        && (let_in.is_ok() || guard.asks_for_token())
        && let Some(file) = dashboard::find(request.method(), request.uri().path())
    {
        let mut response = respond(StatusCode::OK, file.media_type(), file.text());
        dashboard::secure(response.headers_mut());
        context.callers.answered(response.status());
        return Ok(response);
    }
    let answered = match let_in {
        Ok(()) => handle(request, serves, context).await,
        Err(problem) => {
            if problem.status == StatusCode::UNAUTHORIZED {
                context.callers.turned(Turned::Token);
            }
            Err(problem)
        }
    };
    let response = match answered {
        Ok(Answer::Json(status, value)) => respond(status, "application/json", value.to_string()),
        Ok(Answer::Text(media_type, text)) => respond(StatusCode::OK, media_type, text),
        Err(problem) => refuse(&problem),
    };
    context.callers.answered(response.status());
    Ok(response)
}

async fn handle(
    request: Request<Incoming>,
    serves: Serves,
    context: &Arc<Context>,
) -> Result<Answer, Problem> {
    let (head, incoming) = request.into_parts();
    let (operation, value) = router::find(serves, &head.method, head.uri.path())?;
    let body = match timeout(BODY_TIMEOUT, Limited::new(incoming, BODY_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes().to_vec(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a body has at most {BODY_BYTES} bytes"),
            ));
        }
        Ok(Err(_)) => return Err(Problem::bad("the body broke off")),
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come in time",
            ));
        }
    };
    let text = |name| field(&head.headers, name);
    let asked = Asked {
        operation,
        value,
        query: head.uri.query().unwrap_or_default().to_owned(),
        accept: text(header::ACCEPT),
        content_type: text(header::CONTENT_TYPE),
        body,
    };
    api::answer(context, &asked).await
}

/// A field's value; empty if it is not there or not text.
fn field(headers: &HeaderMap, name: header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn respond(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn refuse(problem: &Problem) -> Response<Full<Bytes>> {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let mut response = respond(problem.status, "application/problem+json", body);
    let headers = response.headers_mut();
    if let Ok(allow) = HeaderValue::from_str(&problem.allow.join(", "))
        && !problem.allow.is_empty()
    {
        headers.insert(header::ALLOW, allow);
    }
    match problem.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The rest of a body that nobody wants is not read.
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

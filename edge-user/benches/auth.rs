//! What authentication costs: medians of nanoseconds of CPU, by algorithm, for tokens never seen and seen before.
//!
//! `cargo bench -p edge-user --bench auth [-- ALGORITHM…]`. Every figure is the median of many batches in one thread; the
//! `jsonwebtoken` column verifies the same signature with that crate in the same run, and refused tokens show what a
//! flood of them costs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot go on has failed"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are printed with a few digits")]

use std::{hint::black_box, sync::Arc};

use edge_user::{
    auth::{Authenticator, Authority},
    config::{AuthPolicy, KeySource, Provider},
};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use support::{NOW, Request, Signer, claims_with, jwks, now, provider, rule};
use tempfile::TempDir;

#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/auth/support.rs"]
mod support;

const BATCHES: usize = 61;
/// More than a worker's cache holds, so that a round of them never finds one again.
const MANY: usize = 40_000;
/// As many as fit the cache well.
const SOME: usize = 5_000;

/// Median nanoseconds of CPU of one call, over batches of `size` calls.
fn median(size: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut number = 0;
    let mut batch = || {
        let begun = cpu_nanoseconds();
        for _ in 0..size {
            call(number);
            number += 1;
        }
        (cpu_nanoseconds() - begun) / size as f64
    };
    batch();
    let mut samples: Vec<_> = (0..BATCHES).map(|_| batch()).collect();
    samples.sort_by(f64::total_cmp);
    samples[BATCHES / 2]
}

/// CPU time of this thread: what others do on the machine meanwhile counts little.
fn cpu_nanoseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

struct Subject {
    door: Authenticator,
    policy: AuthPolicy,
    signer: Signer,
    algorithm: Algorithm,
}

impl Subject {
    fn new(algorithm: Algorithm, directory: &TempDir) -> Self {
        let signer = Signer::of(algorithm);
        let door = Authenticator::new(Arc::new(
            Authority::load(
                &[Self::provider(algorithm, &signer, directory)],
                None,
                None,
                now(),
            )
            .expect("loads"),
        ));
        Self {
            door,
            policy: AuthPolicy::Required(rule(&[0])),
            signer,
            algorithm,
        }
    }

    fn provider(algorithm: Algorithm, signer: &Signer, directory: &TempDir) -> Provider {
        let path = directory.path().join(format!("{algorithm:?}"));
        std::fs::write(&path, jwks(&[signer.jwk(Some("k"))])).expect("a temporary file");
        let secret_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, secret_only).expect("a temporary file");
        provider(&[algorithm], KeySource::JwksFile(path))
    }

    fn token(&self, number: usize) -> String {
        self.signer.token(
            self.algorithm,
            Some("k"),
            &claims_with(json!({"jti": format!("t-{number}"), "exp": NOW + 3600})),
        )
    }

    fn requests(&self, count: usize) -> Vec<Request> {
        (0..count)
            .map(|number| Request::bearer(self.token(number)))
            .collect()
    }

    fn ask(&self, request: &Request) -> bool {
        black_box(self.door.authenticate(&self.policy, request, now())).is_ok()
    }
}

/// `--write FOLDER COUNT`: keys and tokens of three algorithms for measurements over HTTP, valid for a day from now.
fn write() -> bool {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != "--write")
        .skip(1);
    let (Some(folder), Some(count)) = (arguments.next(), arguments.next()) else {
        return false;
    };
    let folder = std::path::PathBuf::from(folder);
    let count: usize = count.parse().expect("a number of tokens");
    let second = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock")
        .as_secs();
    let file = |name: String, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("the folder can be written");
        let secret_only = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&path, secret_only).expect("the folder can be written");
    };
    // In words, as HAProxy takes it.
    let secret = "breakwater-bench-0123456789abcdefghij";
    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256] {
        let signer = match algorithm {
            Algorithm::HS256 => Signer::Secret(secret.into()),
            other => Signer::of(other),
        };
        let tokens: Vec<_> = (0..count)
            .map(|number| {
                let claims = claims_with(json!({
                    "sub": format!("user-{number}"), "jti": format!("t-{number}"),
                    "iat": second, "nbf": second, "exp": second + 86_400,
                }));
                signer.token(algorithm, Some("k"), &claims)
            })
            .collect();
        file(
            format!("{algorithm:?}.jwks"),
            jwks(&[signer.jwk(Some("k"))]).as_bytes(),
        );
        match signer {
            Signer::Secret(_) => file("HS256.secret".into(), secret.as_bytes()),
            other => file(format!("{algorithm:?}.pem"), other.pem().as_bytes()),
        }
        file(
            format!("{algorithm:?}.tokens"),
            (tokens.join("\n") + "\n").as_bytes(),
        );
    }
    true
}

fn main() {
    if write() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory");
    println!(
        "nanoseconds of CPU a request, medians of {BATCHES} batches; one token, then many, then refused ones"
    );
    println!(
        "{:<6} {:>10} {:>10} {:>10} {:>13} {:>12}",
        "", "first", "again", "forged", "jsonwebtoken", "first/theirs"
    );
    for algorithm in [
        Algorithm::HS256,
        Algorithm::HS384,
        Algorithm::HS512,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ] {
        if is_wanted(algorithm) {
            by_algorithm(&Subject::new(algorithm, &directory));
        }
    }
    if is_wanted(Algorithm::HS256) {
        many_tokens(&Subject::new(Algorithm::HS256, &directory));
        transports(&Subject::new(Algorithm::HS256, &directory));
    }
}

/// All, or those named on the command line.
fn is_wanted(algorithm: Algorithm) -> bool {
    let mut names = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    names.peek().is_none() || names.any(|name| name.eq_ignore_ascii_case(&format!("{algorithm:?}")))
}

fn by_algorithm(subject: &Subject) {
    // A token that is found in no cache: each batch takes other ones, and all together are more than it holds.
    let count = if matches!(subject.signer, Signer::Secret(_)) {
        MANY
    } else {
        1_500
    };
    let requests = subject.requests(count);
    let size = count / (BATCHES + 1);
    let first = median(size, |number| assert!(subject.ask(&requests[number % count])));
    let one = &requests[0];
    let again = median(2_000, |_| assert!(subject.ask(one)));
    let mut forged: Vec<_> = requests[..50].to_vec();
    for request in &mut forged {
        let value = &mut request.headers[0].1;
        let at = value.len() - 10;
        value[at] = if value[at] == b'A' { b'B' } else { b'A' };
    }
    let refused = median(20, |number| assert!(!subject.ask(&forged[number % 50])));
    let jwk = serde_json::from_value(subject.signer.jwk(None)).expect("a JWK");
    let key = DecodingKey::from_jwk(&jwk).expect("a key");
    let token = subject.token(0);
    let (message, signature) = token.rsplit_once('.').expect("a token");
    let theirs = median(20, |_| {
        assert!(matches!(
            crypto::verify(black_box(signature), message.as_bytes(), &key, subject.algorithm),
            Ok(true)
        ));
    });
    println!(
        "{:<6} {first:>10.0} {again:>10.0} {refused:>10.0} {theirs:>13.0} {:>12.2}",
        format!("{:?}", subject.algorithm),
        first / theirs
    );
}

fn many_tokens(subject: &Subject) {
    for (count, what) in [
        (1, "1 token"),
        (SOME, "5,000 tokens"),
        (MANY, "40,000 tokens, more than fit"),
    ] {
        let requests = subject.requests(count);
        for request in &requests {
            assert!(subject.ask(request));
        }
        let before = subject.door.authority().status().cache;
        let nanoseconds = median(count.max(2_000), |number| {
            assert!(subject.ask(&requests[number % count]));
        });
        let after = subject.door.authority().status().cache;
        let hits = after.hits - before.hits;
        let share = 100.0 * hits as f64 / (hits + after.misses - before.misses) as f64;
        println!("HS256, {what}: {nanoseconds:.0} ns, {share:.0} % found");
    }
}

fn transports(subject: &Subject) {
    let token = subject.token(0);
    let open = median(2_000, |_| {
        assert!(
            black_box(
                subject
                    .door
                    .authenticate(&AuthPolicy::None, &Request::new(), now())
            )
            .is_ok()
        );
    });
    println!("open route: {open:.0} ns");
    let others = "a=1; b=2; theme=dark; consent=yes; ";
    for (what, request) in [
        ("Authorization", Request::bearer(&token)),
        (
            "cookie among five",
            Request::cookie(format!("{others}session={token}")),
        ),
        (
            "cookie after 4 KiB of others",
            Request::cookie(format!("big={}; session={token}", "x".repeat(4096))),
        ),
    ] {
        let nanoseconds = median(2_000, |_| assert!(subject.ask(&request)));
        println!("known token, {what}: {nanoseconds:.0} ns");
    }
}

//! Paths that servers read differently: refused, or let through where every reading leads to the same route.

use super::{
    routing::serving,
    support::{Edge, Origin},
};
use crate::gateway::Reason;

fn check(edge: &Edge, origin: &Origin, rows: &[(&str, u16, &str)]) {
    for (path, status, forwarded) in rows {
        let before = origin.seen().len();
        let mut client = edge.connect();
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bad\r\n\r\n").as_bytes());
        assert_eq!(client.response().status, *status, "{path}");
        let seen = origin.seen();
        if *status == 200 {
            assert_eq!(seen[before].line(), format!("GET {forwarded} HTTP/1.1"), "{path}");
        } else {
            assert_eq!(seen.len(), before, "{path} reached the origin");
        }
    }
}

/// An open site with a part that wants a token, which is not given.
const SITE: &str = "
[[route]]
name = 'open'
path = '/'
upstream = 'o'
auth = 'none'
KEEP
[[route]]
name = 'admin'
path = '/admin'
upstream = 'o'
auth = 'required'
providers = ['p']
[[route]]
name = 'deep'
path = '/files/private'
upstream = 'o'
auth = 'required'
providers = ['p']
[[provider]]
name = 'p'
algorithms = ['HS256']
secret_file = 'jwt.secret'
";

#[test]
fn parameters_do_not_lead_around_a_route() {
    let origin = Origin::ok();
    let edge = serving(&[("o", origin.address)], &SITE.replace("KEEP", ""));
    check(
        &edge,
        &origin,
        &[
            ("/x;v=1/y", 200, "/x;v=1/y"),
            ("/admin", 401, ""),
            // Servers that drop parameters read /admin in each of these.
            ("/admin;x", 400, ""),
            ("/admin;x/users", 400, ""),
            ("/admin%3bx", 400, ""),
            ("/;x/admin", 400, ""),
            ("/files;a/private;b/c", 400, ""),
            ("/admin/x;y", 401, ""),
            ("/..;/admin", 400, ""),
            ("/x%2fadmin", 400, ""),
            ("/%e0%80%af", 400, ""),
        ],
    );
    assert_eq!(edge.counters().refused(Reason::BadPath), 8);
}

#[test]
fn encoded_slashes_pass_where_they_make_no_difference() {
    let origin = Origin::ok();
    let edge = serving(
        &[("o", origin.address)],
        &SITE.replace("KEEP", "encoded_slashes = 'keep'"),
    );
    check(
        &edge,
        &origin,
        &[
            ("/npm/@scope%2fname", 200, "/npm/@scope%2Fname"),
            ("/a%2Fb%2Fc/d", 200, "/a%2Fb%2Fc/d"),
            // Servers that decode read a protected path in each of these.
            ("/files%2fprivate", 400, ""),
            ("/files%2fprivate%2fx", 400, ""),
            ("/files%2f;x%2fprivate", 400, ""),
            ("/files%2fprivate;x", 400, ""),
            ("/x%2f..%2fadmin", 400, ""),
            ("/%2fadmin", 400, ""),
            ("/x%2f%2fadmin", 400, ""),
            // This route has not asked for them.
            ("/admin/a%2fb", 400, ""),
            ("/admin%2fb", 400, ""),
        ],
    );
}

#[test]
fn dots_and_slashes_are_settled_before_there_is_a_route() {
    let origin = Origin::ok();
    let routes = SITE.replace("KEEP", "");
    let strict = serving(&[("o", origin.address)], &routes);
    let rows = ["/x/../admin", "//admin", "/x/./y", "/x//y"].map(|path| (path, 400, ""));
    check(&strict, &origin, &rows);
    let lenient = format!("{routes}[gateway.paths]\ndot_segments = 'resolve'\nduplicate_slashes = 'merge'\n");
    let lenient = serving(&[("o", origin.address)], &lenient);
    check(
        &lenient,
        &origin,
        &[
            ("/x/../y", 200, "/y"),
            ("/x//./y/", 200, "/x/y/"),
            ("/x/../admin", 401, ""),
            ("//admin", 401, ""),
            ("/x/%2e%2e/admin/u", 401, ""),
            ("/../admin", 400, ""),
            ("/x/..;/admin", 400, ""),
            ("/x%2f../admin", 400, ""),
        ],
    );
}

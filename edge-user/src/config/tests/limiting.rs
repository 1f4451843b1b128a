//! `[[limit]]`: what is read, and every mistake with its key.

use super::mistakes::{errors, warnings};
use crate::config::{Config, LimitKey};

const ROUTES: &str = "[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\n[[upstream]]\nname = 'u'\nendpoints = ['127.0.0.1:9']\n\
    [[route]]\nname = 'site'\npath = '/'\nupstream = 'u'\nauth = 'none'\n";

#[test]
fn limits_are_read() {
    let text = format!(
        "{ROUTES}[[limit]]\nname = 'a'\nroutes = ['site']\nby = ['address', 'route', 'header:X-Api-Key']\n\
         requests = 100\nper = '1m'\nconcurrent = 7\n"
    );
    let config = Config::parse(&text, "t.toml", std::path::Path::new("/"))
        .unwrap_or_else(|error| panic!("{error}"))
        .config;
    let limit = &config.request_limits[0];
    let rate = limit.rate.unwrap();
    assert_eq!(limit.routes, [0]);
    assert_eq!(
        limit.by,
        [
            LimitKey::Address,
            LimitKey::Route,
            LimitKey::Header("x-api-key".into())
        ]
    );
    assert_eq!(
        (rate.requests.get(), rate.per.as_secs(), rate.burst.get()),
        (100, 60, 100)
    );
    assert_eq!((limit.concurrent.unwrap().get(), limit.keys.get()), (7, 65_536));
}

#[test]
fn mistakes_are_told_with_their_key() {
    let rows: Vec<(String, Vec<&str>)> = [
        (
            "",
            vec![
                "12 limit[0].by: missing key",
                "12 limit[0]: a limit says how many requests",
            ],
        ),
        (
            "by = []\nconcurrent = 1\n",
            vec!["14 limit[0].by: counts requests by something"],
        ),
        (
            "by = ['adress']\nconcurrent = 1\n",
            vec!["14 limit[0].by[0]: did you mean `address`?"],
        ),
        (
            "by = ['header:a b']\nconcurrent = 1\n",
            vec!["14 limit[0].by[0]: not the name of a header"],
        ),
        (
            "by = ['route', 'route']\nconcurrent = 1\n",
            vec!["14 limit[0].by[1]: given twice"],
        ),
        (
            "by = ['address']\nconcurrent = 0\n",
            vec!["15 limit[0].concurrent: between 1 and 1000000"],
        ),
        (
            "by = ['address']\nrequests = 0\nper = '1s'\n",
            vec!["15 limit[0].requests: between 1 and 1000000000"],
        ),
        (
            "by = ['address']\nrequests = 1\n",
            vec!["15 limit[0].requests: in what time?"],
        ),
        (
            "by = ['address']\nconcurrent = 1\nper = '1s'\n",
            vec!["16 limit[0].per: no meaning without `requests`"],
        ),
        (
            "by = ['address']\nrequests = 1\nper = '32days'\n",
            vec!["16 limit[0].per: at most"],
        ),
        (
            "by = ['address']\nrequests = 1\nper = '1day'\nburst = 1000\n",
            vec!["17 limit[0].burst: takes more than"],
        ),
        (
            "by = ['address']\nconcurrent = 1\nroutes = ['sit']\n",
            vec!["16 limit[0].routes[0]: did you mean `site`?"],
        ),
        (
            "by = ['address']\nconcurrent = 1\nroutes = []\n",
            vec!["16 limit[0].routes: limits nothing"],
        ),
        (
            "by = ['address']\nconcurrent = 1\nkeys = 5000000\n",
            vec!["16 limit[0].keys: between 1 and 4194304"],
        ),
        // A claim that cannot exist.
        (
            "by = [['sub', 'x']]\nconcurrent = 1\n",
            vec![
                "14 limit[0].by[0]: below `sub`",
                "14 limit[0].by[0]: no claim to count by",
            ],
        ),
        (
            "by = ['claim:']\nconcurrent = 1\n",
            vec![
                "14 limit[0].by[0]: 1 to 1024 bytes",
                "14 limit[0].by[0]: no claim to count by",
            ],
        ),
        (
            "by = ['claim:sub']\nconcurrent = 1\nroutes = ['site']\n",
            vec!["16 limit[0].routes[0]: route `site` looks at no token"],
        ),
        (
            "by = [1]\nconcurrent = 1\n",
            vec!["14 limit[0].by[0]: expected \"address\""],
        ),
    ]
    .into_iter()
    .map(|(rest, problems)| (format!("{ROUTES}[[limit]]\nname = 'a'\n{rest}"), problems))
    .collect();
    let rows: Vec<_> = rows
        .iter()
        .map(|(text, problems)| (text.as_str(), problems.as_slice()))
        .collect();
    errors(&rows);
    let twice = format!(
        "{ROUTES}[[limit]]\nname = 'a'\nby = ['address']\nconcurrent = 1\n[[limit]]\nname = 'a'\nby = ['address']\nconcurrent = 1\n"
    );
    errors(&[(&twice, &["17 limit[1].name: given twice"])]);
    let fine = format!("{ROUTES}[[limit]]\nname = 'a'\nby = ['address']\nconcurrent = 1\n");
    warnings(&[(&fine, &[])]);
}

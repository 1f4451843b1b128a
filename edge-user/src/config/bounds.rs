//! Defaults and bounds of every key, in one place.

use std::{num::NonZeroU32, time::Duration};

/// Most entries of the allow list and of the deny list.
pub const MAX_LIST: usize = 1_000_000;

/// Most entries of any other list and of any `[[section]]`.
pub const MAX_ITEMS: usize = 10_000;

/// Longest name of a service, listener, upstream, route or provider, in bytes: they become metric labels.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest route path, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;

/// Most `route.hosts`.
pub const MAX_ROUTE_HOSTS: usize = 64;
/// Longest host, in bytes (RFC 1035, 2.3.4, without length octets).
pub const MAX_HOST_BYTES: usize = 253;

/// Most `route.methods`.
pub const MAX_ROUTE_METHODS: usize = 16;
/// Longest method, in bytes: longer ones are refused before there is a route.
pub const MAX_METHOD_BYTES: usize = 32;

/// Most `route.headers`, and most `route.query`.
pub const MAX_CONDITIONS: usize = 16;
/// Longest value that a field or parameter is compared with, in bytes.
pub const MAX_CONDITION_BYTES: usize = 1024;

/// Most routes of one host and path: they are tried one after another.
pub const MAX_ROUTES_OF_A_PATH: usize = 128;

/// Longest interface name the kernel takes (IFNAMSIZ without its NUL).
pub const MAX_INTERFACE_BYTES: usize = 15;

/// Most units a second a limit can be set to.
pub const MAX_RATE: u64 = 1_000_000_000_000;

/// Longest time a burst may take to be earned back: limiter cells hold a bounded time ahead.
pub const MAX_BURST_SECONDS: u64 = 600;

/// Lowest tick rate Linux is built with; a burst that spans two of its ticks does so on every kernel.
pub const LOWEST_KERNEL_HZ: u32 = 100;

/// Ticks a burst must span: the limiter's clock may be one tick late at either end.
pub const MIN_BURST_TICKS: u64 = 2;

/// `shield.max_bans`.
pub const DEFAULT_MAX_BANS: u32 = 65_536;
/// Largest `shield.max_bans`: the map is allocated at once.
pub const MAX_BANS: u32 = 16_777_216;

/// `shield.earned_idle`.
pub const DEFAULT_EARNED_IDLE: Duration = Duration::from_mins(10);
/// Shortest `shield.earned_idle`.
pub const MIN_EARNED_IDLE: Duration = Duration::from_secs(1);
/// Longest `shield.earned_idle`: well within half a turn of the cells' clock, which is 2.3 hours at 1,000 ticks a second.
pub const MAX_EARNED_IDLE: Duration = Duration::from_hours(1);

/// `service.syn.hold`.
pub const DEFAULT_SYN_HOLD: Duration = Duration::from_secs(10);
/// Shortest `service.syn.hold`.
pub const MIN_SYN_HOLD: Duration = Duration::from_secs(1);
/// Longest `service.syn.hold`.
pub const MAX_SYN_HOLD: Duration = Duration::from_hours(1);
/// Largest `service.syn.window_scale`.
pub const MAX_WINDOW_SCALE: u64 = 14;

/// Most services of the kind `direct`, each with two tables in the kernel.
pub const MAX_DIRECT: usize = edge_common::abi::steer::MAX_DIRECT as usize;
/// Most backends of all of them.
pub const MAX_BACKENDS: usize = edge_common::abi::steer::MAX_BACKENDS as usize - 1;
/// `service.table_size`, and the largest.
pub const DEFAULT_TABLE_SIZE: u32 = edge_common::algo::maglev::SIZE;
/// Smallest `service.table_size`.
pub const MIN_TABLE_SIZE: u32 = 251;
/// Places of a table that there must be for each backend, so that shares are within 1 % of the weights.
pub const PLACES_A_BACKEND: u32 = edge_common::algo::maglev::PLACES_A_MEMBER;

/// `shield.escalation.after`.
pub const DEFAULT_ESCALATION_AFTER: Duration = Duration::from_secs(10);
/// Shortest `shield.escalation.after`: a burst is no offence yet.
pub const MIN_ESCALATION_AFTER: Duration = Duration::from_secs(1);
/// Longest `shield.escalation.after`.
pub const MAX_ESCALATION_AFTER: Duration = Duration::from_hours(1);
/// `shield.escalation.ban`.
pub const DEFAULT_ESCALATION_BAN: Duration = Duration::from_mins(1);
/// `shield.escalation.max_ban`.
pub const DEFAULT_ESCALATION_MAX_BAN: Duration = Duration::from_hours(1);

/// Largest `gateway.workers`.
pub const MAX_WORKERS: u32 = 1024;
/// `gateway.shutdown_grace`.
pub const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// Longest `gateway.shutdown_grace`.
pub const MAX_SHUTDOWN_GRACE: Duration = Duration::from_hours(24);

/// Longest `gateway.drain_delay`.
pub const MAX_DRAIN_DELAY: Duration = Duration::from_hours(24);
/// `gateway.upgrade_timeout`.
pub const DEFAULT_UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest `gateway.upgrade_timeout`.
pub const MAX_UPGRADE_TIMEOUT: Duration = Duration::from_hours(24);

/// Most certificates of one listener.
pub const MAX_CERTIFICATES: usize = 1000;
/// Most names of one certificate.
pub const MAX_CERTIFICATE_NAMES: usize = 1000;
/// `listener.tls.handshake_timeout`.
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest `listener.tls.handshake_timeout`.
pub const MAX_HANDSHAKE_TIMEOUT: Duration = Duration::from_mins(1);

/// `gateway.limits.header_count`; hyper's and most servers' default.
pub const DEFAULT_HEADER_COUNT: u32 = 100;
/// Largest `gateway.limits.header_count`.
pub const MAX_HEADER_COUNT: u32 = 256;
/// `gateway.limits.header_bytes`: a 16 KiB cookie beside other large fields fits.
pub const DEFAULT_HEADER_BYTES: u32 = 64 * 1024;
/// Least `gateway.limits.header_bytes`.
pub const MIN_HEADER_BYTES: u32 = 1024;
/// Largest `gateway.limits.header_bytes`.
pub const MAX_HEADER_BYTES: u32 = 1024 * 1024;
/// `gateway.limits.target_bytes`.
pub const DEFAULT_TARGET_BYTES: u32 = 8 * 1024;
/// Largest `gateway.limits.target_bytes`: longer ones no library takes.
pub const MAX_TARGET_BYTES: u32 = 65_534;
/// `gateway.limits.connections`.
pub const DEFAULT_CONNECTIONS: u32 = 16 * 1024;
/// Largest `gateway.limits.connections`.
pub const MAX_CONNECTIONS: u32 = 10_000_000;
/// `gateway.limits.connections_per_address`.
pub const DEFAULT_CONNECTIONS_PER_ADDRESS: u32 = 1024;
/// `gateway.limits.streams`.
pub const DEFAULT_STREAMS: u32 = 128;
/// Largest `gateway.limits.streams`.
pub const MAX_STREAMS: u32 = 1000;
/// `gateway.limits.header_timeout`.
pub const DEFAULT_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// `gateway.limits.idle_timeout`.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// `gateway.limits.stall_timeout`.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// `gateway.limits.min_body_rate`, in bytes a second: a modem is faster.
pub const DEFAULT_MIN_BODY_RATE: u32 = 240;
/// Largest `gateway.limits.min_body_rate`, and `min_read_rate`.
pub const MAX_MIN_BODY_RATE: u32 = 1_000_000_000;
/// `gateway.limits.min_read_rate`, in bytes a second.
pub const DEFAULT_MIN_READ_RATE: u32 = 240;
/// `gateway.limits.tunnel_idle_timeout`.
pub const DEFAULT_TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// Longest `gateway.limits.tunnel_idle_timeout`.
pub const MAX_TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_hours(24);
/// `gateway.limits.proxy_header_timeout`.
pub const DEFAULT_PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest of the time limits in `gateway.limits`.
pub const MAX_CLIENT_TIMEOUT: Duration = Duration::from_hours(1);

/// `upstream.connect_timeout`.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest `upstream.connect_timeout`.
pub const MAX_CONNECT_TIMEOUT: Duration = Duration::from_mins(5);

/// Largest weight of an endpoint, and of an upstream on a route.
pub const MAX_WEIGHT: u32 = 1000;

/// Most `route.upstreams`.
pub const MAX_SPLIT: usize = 16;

/// Longest `upstream.slow_start`.
pub const MAX_SLOW_START: Duration = Duration::from_hours(1);

/// `upstream.dns.refresh_min`.
pub const DEFAULT_DNS_REFRESH_MIN: Duration = Duration::from_secs(5);
/// `upstream.dns.refresh_max`.
pub const DEFAULT_DNS_REFRESH_MAX: Duration = Duration::from_mins(5);
/// Longest `upstream.dns.refresh_min` and `refresh_max`.
pub const MAX_DNS_REFRESH: Duration = Duration::from_hours(24);

/// `upstream.pool.idle`.
pub const DEFAULT_POOL_IDLE: u32 = 64;
/// `upstream.pool.idle_timeout`; below the 5 s after which Node.js closes a connection.
pub const DEFAULT_POOL_IDLE_TIMEOUT: Duration = Duration::from_millis(4500);
/// `upstream.pool.waiting`.
pub const DEFAULT_POOL_WAITING: u32 = 1024;
/// `upstream.pool.wait_timeout`.
pub const DEFAULT_POOL_WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// `upstream.pool.streams`.
pub const DEFAULT_POOL_STREAMS: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
/// Largest number in `upstream.pool` and `upstream.circuit`.
pub const MAX_POOL: u32 = 1_000_000;
/// Longest time in `upstream.pool`.
pub const MAX_POOL_TIME: Duration = Duration::from_hours(24);

/// `upstream.health.interval`.
pub const DEFAULT_HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest `upstream.health.interval`.
pub const MIN_HEALTH_INTERVAL: Duration = Duration::from_millis(50);
/// Longest `upstream.health.interval`.
pub const MAX_HEALTH_INTERVAL: Duration = Duration::from_hours(1);
/// `upstream.health.timeout`.
pub const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest `upstream.health.timeout`.
pub const MAX_HEALTH_TIMEOUT: Duration = Duration::from_mins(5);
/// `upstream.health.rise`.
pub const DEFAULT_HEALTH_RISE: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
/// `upstream.health.fall`.
pub const DEFAULT_HEALTH_FALL: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
/// Largest `upstream.health.rise` and `fall`.
pub const MAX_HEALTH_THRESHOLD: u32 = 100;
/// Longest `upstream.health.body`, in bytes.
pub const MAX_HEALTH_BODY_BYTES: usize = 1024;

/// `upstream.ejection.consecutive`.
pub const DEFAULT_EJECTION_CONSECUTIVE: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);
/// `upstream.ejection.min_requests`.
pub const DEFAULT_EJECTION_MIN_REQUESTS: u32 = 100;
/// `upstream.ejection.interval`.
pub const DEFAULT_EJECTION_INTERVAL: Duration = Duration::from_secs(10);
/// `upstream.ejection.time`.
pub const DEFAULT_EJECTION_TIME: Duration = Duration::from_secs(10);
/// `upstream.ejection.max_time`.
pub const DEFAULT_EJECTION_MAX_TIME: Duration = Duration::from_mins(5);
/// Longest time in `upstream.ejection`.
pub const MAX_EJECTION_TIME: Duration = Duration::from_hours(24);
/// `upstream.ejection.max_percent`.
pub const DEFAULT_EJECTION_MAX_PERCENT: u8 = 50;

/// `upstream.retry.attempts`.
pub const DEFAULT_RETRY_ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
/// Largest `upstream.retry.attempts`.
pub const MAX_RETRY_ATTEMPTS: u32 = 10;
/// `upstream.retry.budget_percent`.
pub const DEFAULT_RETRY_BUDGET_PERCENT: u32 = 20;
/// Largest `upstream.retry.buffer_bytes`.
pub const MAX_RETRY_BUFFER_BYTES: u32 = 1024 * 1024;

/// `route.timeout`.
pub const DEFAULT_ROUTE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest `route.timeout`.
pub const MAX_ROUTE_TIMEOUT: Duration = Duration::from_hours(24);

/// Largest `route.respond.body`, in bytes.
pub const MAX_RESPOND_BYTES: usize = 64 * 1024;
/// `route.respond.content_type`.
pub const DEFAULT_CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// Most fields that a route sets, adds, removes, allows or exposes, each.
pub const MAX_FIELD_RULES: usize = 64;
/// Longest name of such a field, in bytes.
pub const MAX_FIELD_NAME_BYTES: usize = 128;
/// Longest literal part of such a field's value, in bytes.
pub const MAX_FIELD_VALUE_BYTES: usize = 4096;

/// Most `route.fan_out`.
pub const MAX_FAN_OUT: usize = 16;
/// Largest answer of one part, in bytes.
pub const MAX_FAN_OUT_BYTES: usize = 1024 * 1024;

/// `route.mirror.body_bytes`.
pub const DEFAULT_MIRROR_BYTES: u32 = 64 * 1024;
/// Largest `route.mirror.body_bytes`: so much is kept of each request under way.
pub const MAX_MIRROR_BYTES: u32 = 1024 * 1024;

/// `route.compress.types`.
pub const DEFAULT_COMPRESS_TYPES: [&str; 7] = [
    "text/html",
    "text/css",
    "text/plain",
    "text/javascript",
    "application/javascript",
    "application/json",
    "image/svg+xml",
];
/// Most `route.compress.types`.
pub const MAX_COMPRESS_TYPES: usize = 64;
/// `route.compress.min_bytes`: below it the coding costs more than it saves.
pub const DEFAULT_COMPRESS_MIN_BYTES: u64 = 1024;

/// Most `route.cors.origins`.
pub const MAX_CORS_ORIGINS: usize = 256;
/// `route.cors.max_age`.
pub const DEFAULT_CORS_MAX_AGE: Duration = Duration::from_mins(10);
/// Longest `route.cors.max_age`: Firefox's limit, the longest of all browsers.
pub const MAX_CORS_MAX_AGE: Duration = Duration::from_hours(24);

/// `provider.leeway`.
pub const DEFAULT_LEEWAY: Duration = Duration::from_mins(1);
/// Longest `provider.leeway`: beyond it an expiry means little.
pub const MAX_LEEWAY: Duration = Duration::from_mins(10);

/// Most providers of one route.
pub const MAX_ROUTE_PROVIDERS: usize = 8;

/// Most `provider.sources`.
pub const MAX_SOURCES: usize = 16;

/// Most `route.claims`, and most `provider.claim_headers`.
pub const MAX_CLAIMS: usize = 64;

/// Most names of one claim path: tokens nest deeper only in attacks.
pub const MAX_CLAIM_DEPTH: usize = 16;

/// Longest name in a claim path and longest text it is compared with, in bytes.
pub const MAX_CLAIM_BYTES: usize = 1024;

/// Longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// Longest `provider.max_lifetime`.
pub const MAX_TOKEN_LIFETIME: Duration = Duration::from_hours(365 * 24);

/// `provider.fetch.refresh`.
pub const DEFAULT_REFRESH: Duration = Duration::from_mins(5);
/// `provider.fetch.refresh_min`.
pub const DEFAULT_REFRESH_MIN: Duration = Duration::from_mins(1);
/// `provider.fetch.refresh_max`.
pub const DEFAULT_REFRESH_MAX: Duration = Duration::from_mins(15);
/// `provider.fetch.cooldown`.
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(5);
/// Longest `provider.fetch.cooldown`: requests may wait for its end.
pub const MAX_COOLDOWN: Duration = Duration::from_hours(1);
/// `provider.fetch.timeout`.
pub const DEFAULT_FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest `provider.fetch.timeout`: requests may wait for it.
pub const MAX_FETCH_TIMEOUT: Duration = Duration::from_mins(1);
/// `provider.fetch.max_stale`.
pub const DEFAULT_MAX_STALE: Duration = Duration::from_hours(24);
/// Longest `provider.fetch.max_stale`.
pub const MAX_STALE: Duration = Duration::from_hours(30 * 24);

/// Largest revocation file, in bytes.
pub const MAX_REVOCATION_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// Largest key file, in bytes.
pub const MAX_KEY_FILE_BYTES: u64 = 1024 * 1024;

/// `offences.threshold`.
pub const DEFAULT_THRESHOLD: u32 = 20;
/// Largest `offences.threshold`.
pub const MAX_THRESHOLD: u32 = 1_000_000;
/// `offences.half_life`.
pub const DEFAULT_HALF_LIFE: Duration = Duration::from_mins(1);
/// Longest `offences.half_life`.
pub const MAX_HALF_LIFE: Duration = Duration::from_hours(24);
/// Largest weight in `[offences.weights]`, in points.
pub const MAX_OFFENCE_WEIGHT: u32 = 1000;
/// `offences.slow_per_second`.
pub const DEFAULT_SLOW_PER_SECOND: u32 = 1;
/// Largest `offences.slow_per_second`.
pub const MAX_SLOW_PER_SECOND: u32 = 1_000_000;
/// Most `offences.probes`.
pub const MAX_PROBES: usize = 1000;
/// `offences.ban`.
pub const DEFAULT_BAN: Duration = Duration::from_mins(1);
/// `offences.max_ban`.
pub const DEFAULT_MAX_BAN: Duration = Duration::from_hours(24);
/// Longest `offences.max_ban`: a ban always ends.
pub const LONGEST_BAN: Duration = Duration::from_hours(365 * 24);
/// `offences.max_bans_per_minute`.
pub const DEFAULT_MAX_BANS_PER_MINUTE: u32 = 600;
/// Largest `offences.max_bans_per_minute`.
pub const MAX_BANS_PER_MINUTE: u32 = 1_000_000;

/// Most `[[limit]]`s.
pub const MAX_LIMITS: usize = 64;
/// Most entries of `limit.by`.
pub const MAX_LIMIT_PARTS: usize = 4;
/// Largest `limit.requests` and `limit.burst`.
pub const MAX_LIMIT_REQUESTS: u32 = 1_000_000_000;
/// Longest `limit.per`.
pub const MAX_LIMIT_PER: Duration = Duration::from_hours(31 * 24);
/// Longest time a burst may take to be earned back.
pub const MAX_LIMIT_DEPTH: Duration = Duration::from_hours(365 * 24);
/// Largest `limit.concurrent`.
pub const MAX_CONCURRENT: u32 = 1_000_000;
/// `limit.keys`.
pub const DEFAULT_LIMIT_KEYS: u32 = 65_536;
/// Largest `limit.keys`: 64 MiB.
pub const MAX_LIMIT_KEYS: u32 = 4_194_304;

/// Longest path of a socket, in bytes (unix(7), without the final NUL).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Shortest and longest bearer token of the admin API, in characters.
pub const MIN_ADMIN_TOKEN_BYTES: usize = 16;
/// See [`MIN_ADMIN_TOKEN_BYTES`].
pub const MAX_ADMIN_TOKEN_BYTES: usize = 4096;

/// Longest reason of a ban that an operator gives, in characters.
pub const MAX_BAN_REASON_CHARS: usize = 120;

/// Where the history is if nobody says.
pub const DEFAULT_HISTORY_PATH: &str = "/var/lib/breakwater/history.db";
/// How long it is kept.
pub const DEFAULT_HISTORY: Duration = Duration::from_hours(35 * 24);
/// Shortest and longest.
pub const HISTORY: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(3 * 366 * 24));
/// How long a cell of it is.
pub const DEFAULT_HISTORY_CELL: Duration = Duration::from_mins(1);
/// Shortest and longest.
pub const HISTORY_CELL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// Bytes of its file.
pub const DEFAULT_HISTORY_BYTES: u64 = 512 << 20;
/// Least and most.
pub const HISTORY_BYTES: (u64, u64) = (1 << 20, 1 << 40);

//! Dates, names and numbers as people read them.

use jiff::Timestamp;
use rookery_proto::security::v1::{Access, Clearance};

/// What a page shows for nothing.
pub const NONE: &str = "–";

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A date, in UTC: `2026-11-22 08:15`; a dash for 0.
#[must_use]
pub fn date(unix_ms: i64) -> String {
    if unix_ms == 0 {
        return NONE.to_owned();
    }
    Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| NONE.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// A date to the second, in UTC: `2026-11-22 08:15:30`; a dash for 0.
#[must_use]
pub fn moment(unix_ms: i64) -> String {
    if unix_ms == 0 {
        return NONE.to_owned();
    }
    Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| NONE.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// How far away a moment is: `in 89 days`, `3 hours ago`; a dash for 0.
#[must_use]
pub fn relative(unix_ms: i64, now: i64) -> String {
    if unix_ms == 0 {
        return NONE.to_owned();
    }
    let ahead = unix_ms.saturating_sub(now);
    let (count, unit) = match ahead.saturating_abs() {
        far if far >= 730 * DAY => (far / (365 * DAY), "year"),
        far if far >= 2 * DAY => (far / DAY, "day"),
        far if far >= 2 * HOUR => (far / HOUR, "hour"),
        far if far >= MINUTE => (far / MINUTE, "minute"),
        _ => return "now".to_owned(),
    };
    let plural = if count == 1 { "" } else { "s" };
    if ahead < 0 {
        format!("{count} {unit}{plural} ago")
    } else {
        format!("in {count} {unit}{plural}")
    }
}

/// The beginning of a thumbprint, which tells certificates apart.
#[must_use]
pub fn short(thumbprint: &str) -> &str {
    thumbprint.get(..12).unwrap_or(thumbprint)
}

/// A clearance in words.
#[must_use]
pub fn clearance(number: i32) -> &'static str {
    match Clearance::try_from(number) {
        Ok(Clearance::User) => "User",
        Ok(Clearance::Operator) => "Operator",
        Ok(Clearance::ClusterAdmin) => "Cluster Admin",
        Ok(Clearance::ClusterNode) => "Cluster Node",
        Ok(Clearance::Unspecified) | Err(_) => NONE,
    }
}

/// An access in words.
#[must_use]
pub fn access(number: i32) -> &'static str {
    match Access::try_from(number) {
        Ok(Access::Read) => "Read",
        Ok(Access::ReadWrite) => "Read/Write",
        Ok(Access::Admin) => "Admin",
        Ok(Access::Unspecified) | Err(_) => NONE,
    }
}

/// A number with thin groups: `12 345`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 document`, `12 documents`.
#[must_use]
pub fn several(number: u64, thing: &str) -> String {
    format!("{} {}", count(number), plural(number, thing))
}

/// The name of that many things, for where the number stands apart: `document`, `documents`.
#[must_use]
pub fn plural(number: u64, thing: &str) -> String {
    format!("{thing}{}", if number == 1 { "" } else { "s" })
}

/// A size in binary units: `31.1 MiB`.
#[must_use]
#[allow(clippy::cast_precision_loss)] // One digit after the point is shown.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{size} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A query string of these pairs without the empty ones, with its question mark; `application/x-www-form-urlencoded`.
#[must_use]
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    out.push(char::from(byte))
                }
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_the_unit_that_fits() {
        let now = 1_800_000_000_000;
        for (ahead, expected) in [
            (5_000, "now"),
            (-5_000, "now"),
            (MINUTE, "in 1 minute"),
            (-3 * HOUR, "3 hours ago"),
            (47 * HOUR, "in 47 hours"),
            (48 * HOUR, "in 2 days"),
            (89 * DAY + HOUR, "in 89 days"),
            (-800 * DAY, "2 years ago"),
        ] {
            assert_eq!(relative(now + ahead, now), expected);
        }
        assert_eq!(relative(0, now), NONE);
        assert_eq!(relative(i64::MIN, i64::MAX), "292471208 years ago");
        assert_eq!(date(1_795_334_400_000), "2026-11-22 08:00");
        assert_eq!(date(i64::MAX), NONE);
        assert_eq!(moment(1_795_334_407_999), "2026-11-22 08:00:07");
        assert_eq!((moment(0).as_str(), moment(i64::MAX).as_str()), (NONE, NONE));
    }

    #[test]
    fn numbers_and_queries() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(several(0, "record"), "0 records");
        assert_eq!(several(1, "record"), "1 record");
        assert_eq!(several(1_000, "record"), "1\u{202f}000 records");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(32_610_714), "31.1 MiB");
        assert_eq!(query(&[("a", "x y&\"<"), ("b", ""), ("c", "ü")]), "?a=x%20y%26%22%3C&c=%C3%BC");
        assert_eq!(query(&[("b", "")]), "");
    }
}

//! The open connections: how many there may be, and whose they are.
//!
//! A connection is counted from accept to close, in all and by address. While its handshake is under way it stands in a
//! second, smaller table; where that is full the **oldest** handshake is ended to make room, because an honest one takes
//! milliseconds and whoever holds thousands open holds the oldest.
//!
//! A connection whose certificate lost rights is marked ([`Connections::revoke`]): its streams end at once, and two
//! seconds later the connection closes. The same happens to one whose certificate has expired ([`Connections::expire`]).
//! In between, and on a new connection, every call is decided by the new registry
//! as always; the two seconds are there so that the holder's next call meets an explained refusal and not a reset.
//! An administrator may cut connections without taking anything away ([`Connections::cut`]): they end in the same way, and
//! the holder may connect again.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    certificates,
    clock::{Clock as _, SystemClock},
    limits,
    names::{Thumbprint, Timestamp},
    tls::PeerCertificate,
};

/// How many connections a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections, handshakes included.
    pub connections_max: usize,
    /// Open connections from one address (IPv6: from one /64 network).
    pub per_address_max: usize,
    /// Handshakes under way.
    pub handshakes_max: usize,
    /// Longest handshake, from accept to the end of TLS.
    pub handshake_timeout: Duration,
}

impl Bounds {
    /// The bounds of the client listener.
    pub const CLIENT: Self = Self {
        connections_max: limits::CONNECTIONS_MAX,
        per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX,
        handshakes_max: limits::HANDSHAKES_MAX,
        handshake_timeout: limits::HANDSHAKE_TIMEOUT,
    };

    /// The bounds of the peer listener: its own budget, so that a flood of clients stops no election.
    pub const PEER: Self = Self {
        connections_max: limits::PEER_CONNECTIONS_MAX,
        per_address_max: limits::PEER_CONNECTIONS_MAX,
        handshakes_max: limits::PEER_CONNECTIONS_MAX / 2,
        handshake_timeout: limits::HANDSHAKE_TIMEOUT,
    };
}

/// Why a connection is not worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An administrator took rights from its certificate.
    RightsLost,
    /// Its certificate has expired.
    Expired,
    /// An administrator cut it; its certificate has what it had.
    Cut,
}

impl Reason {
    /// The reason in words, as administrators are told.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::RightsLost => "its certificate lost rights",
            Self::Expired => "its certificate has expired",
            Self::Cut => "cut by an administrator",
        }
    }
}

/// Ids of connections; on all listeners together, so that an id names one.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Whether a connection ends, and why: the first reason stays.
#[derive(Debug, Default)]
pub struct Ending {
    reason: OnceLock<Reason>,
    token: CancellationToken,
}

impl Ending {
    /// Whether it did not end already; it keeps its first reason.
    fn end(&self, reason: Reason) -> bool {
        let first = self.reason.set(reason).is_ok();
        self.token.cancel();
        first
    }

    /// Why it ends; `None` while it does not.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.reason.get().copied()
    }

    /// The token that is cancelled when it ends.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

/// One open connection; an extension of every request on it.
pub struct Connection {
    /// Unique in this process.
    pub id: u64,
    /// The other side.
    pub remote: SocketAddr,
    /// What the handshake proved; `None` where no certificate was shown.
    pub certificate: Option<PeerCertificate>,
    /// When its handshake was over.
    pub opened: Timestamp,
    /// The same moment, by a clock that nobody sets.
    began: Instant,
    /// Requests on it.
    calls: AtomicU64,
    /// When the last of them came, in milliseconds from `began`.
    last_call_ms: AtomicU64,
    /// The minute (of Unix time) in which a use was last noted.
    noted: AtomicI64,
    ending: Arc<Ending>,
}

impl Connection {
    /// Whether no use was noted on this connection in this minute; it is from now on. One load where there was.
    pub(super) fn is_first_in(&self, minute: i64) -> bool {
        self.noted.load(Ordering::Relaxed) != minute
            && self.noted.swap(minute, Ordering::Relaxed) != minute
    }

    /// A request came. One addition and one store, both relaxed; the figures are for people.
    pub(super) fn called(&self) {
        let after = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_call_ms.store(after, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// When the last request came; `None` before the first.
    #[must_use]
    pub fn last_call(&self) -> Option<Timestamp> {
        let after = i64::try_from(self.last_call_ms.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        (self.calls() > 0).then(|| Timestamp(self.opened.0.saturating_add(after)))
    }

    /// Whether it ends because of its certificate, or was cut.
    #[must_use]
    pub fn ending(&self) -> &Arc<Ending> {
        &self.ending
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {} from {}", self.id, self.remote)
    }
}

/// The connections of one listener.
pub struct Connections {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: usize,
    by_address: BTreeMap<IpAddr, usize>,
    handshakes: BTreeMap<u64, CancellationToken>,
    /// Those whose handshake is over.
    connected: BTreeMap<u64, Arc<Connection>>,
    by_thumbprint: BTreeMap<Thumbprint, BTreeMap<u64, Arc<Ending>>>,
    /// Those whose certificates have not expired yet, the earliest first.
    by_expiry: BTreeMap<(Timestamp, u64), Arc<Ending>>,
}

/// Why a connection was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The listener has as many connections as it may.
    Listener,
    /// The address has as many connections as it may.
    Address,
}

impl Connections {
    /// An empty table.
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, table: Mutex::default() })
    }

    /// The bounds it keeps.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Open connections, handshakes included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.table.lock().open
    }

    /// Takes a new connection, in whose handshake it now is.
    ///
    /// # Errors
    /// [`Full`]; the caller closes the socket.
    pub fn admit(self: &Arc<Self>, remote: SocketAddr) -> Result<Slot, Full> {
        let address = counted_address(remote.ip());
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let evicted = CancellationToken::new();
        let mut table = self.table.lock();
        if table.open >= self.bounds.connections_max {
            return Err(Full::Listener);
        }
        let from_address = table.by_address.entry(address).or_default();
        if *from_address >= self.bounds.per_address_max {
            return Err(Full::Address);
        }
        *from_address += 1;
        table.open += 1;
        if table.handshakes.len() >= self.bounds.handshakes_max
            && let Some((_, oldest)) = table.handshakes.pop_first()
        {
            oldest.cancel();
        }
        table.handshakes.insert(id, evicted.clone());
        drop(table);
        let connections = self.clone();
        Ok(Slot { connections, id, remote, address, evicted, known: None, expires: None })
    }

    /// Ends the streams of these certificates now, and their connections a moment later.
    pub fn revoke(&self, thumbprints: &[Thumbprint]) {
        let table = self.table.lock();
        let connections =
            thumbprints.iter().filter_map(|thumbprint| table.by_thumbprint.get(thumbprint));
        for ending in connections.flat_map(BTreeMap::values) {
            ending.end(Reason::RightsLost);
        }
    }

    /// Does the same to those whose certificates have expired at `now`; gives how many. Costs what has expired, not what
    /// is open.
    pub fn expire(&self, now: Timestamp) -> usize {
        let mut table = self.table.lock();
        let mut ended = 0;
        while let Some(first) = table.by_expiry.first_entry() {
            if first.key().0 >= now {
                break; // The last moment belongs to a certificate's life (RFC 5280, section 4.1.2.5).
            }
            first.remove().end(Reason::Expired);
            ended += 1;
        }
        ended
    }

    /// Does the same to connections of these certificates, or to one of them; gives how many did not end already.
    pub fn cut(&self, whose: &[Thumbprint], only: Option<u64>) -> usize {
        let table = self.table.lock();
        let connections = whose.iter().filter_map(|whose| table.by_thumbprint.get(whose));
        let wanted = connections.flatten().filter(|(id, _)| only.is_none_or(|only| only == **id));
        wanted.filter(|(_, ending)| ending.end(Reason::Cut)).count()
    }

    /// Connections after an id in the order of their ids, at most `limit`, and how many there are with those before and
    /// behind; of these certificates, or of everybody where none is named.
    #[must_use]
    pub fn list(
        &self,
        whose: &[Thumbprint],
        after: u64,
        limit: usize,
    ) -> (Vec<Arc<Connection>>, usize) {
        let table = self.table.lock();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        if whose.is_empty() {
            let page = table.connected.range(behind).take(limit);
            return (page.map(|(_, it)| it.clone()).collect(), table.connected.len());
        }
        let of = || whose.iter().filter_map(|whose| table.by_thumbprint.get(whose));
        let mut ids: Vec<u64> =
            of().flat_map(|of| of.range(behind).take(limit)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        let page = ids.iter().take(limit).filter_map(|id| table.connected.get(id).cloned());
        (page.collect(), of().map(BTreeMap::len).sum())
    }

    /// Open connections of a certificate.
    #[must_use]
    pub fn of(&self, thumbprint: &Thumbprint) -> usize {
        self.table.lock().by_thumbprint.get(thumbprint).map_or(0, BTreeMap::len)
    }
}

/// A place in the table, given back when dropped.
pub struct Slot {
    connections: Arc<Connections>,
    id: u64,
    remote: SocketAddr,
    address: IpAddr,
    evicted: CancellationToken,
    known: Option<Thumbprint>,
    expires: Option<Timestamp>,
}

impl Slot {
    /// Completes when this handshake has to make room for a newer one.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// The handshake is over: enters the connection under its certificate.
    pub fn connected(&mut self, certificate: Option<PeerCertificate>) -> Arc<Connection> {
        let ending = Arc::new(Ending::default());
        let expires = certificate.as_ref().and_then(not_after);
        let connection = Arc::new(Connection {
            id: self.id,
            remote: self.remote,
            certificate,
            opened: SystemClock.wall(), // For people; nothing is decided by it.
            began: Instant::now(),
            calls: AtomicU64::new(0),
            last_call_ms: AtomicU64::new(0),
            noted: AtomicI64::new(i64::MIN),
            ending: ending.clone(),
        });
        let mut table = self.connections.table.lock();
        table.handshakes.remove(&self.id);
        table.connected.insert(self.id, connection.clone());
        if let Some(certificate) = &connection.certificate {
            let of_certificate = table.by_thumbprint.entry(certificate.thumbprint).or_default();
            of_certificate.insert(self.id, ending.clone());
            self.known = Some(certificate.thumbprint);
        }
        if let Some(expires) = expires {
            table.by_expiry.insert((expires, self.id), ending);
            self.expires = Some(expires);
        }
        drop(table);
        connection
    }
}

/// When a certificate expires. One that cannot be read has no registration either, so that nothing is allowed to it.
fn not_after(certificate: &PeerCertificate) -> Option<Timestamp> {
    certificates::parse(&certificate.der).ok().map(|parsed| parsed.not_after)
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.connections.table.lock();
        table.open = table.open.saturating_sub(1);
        table.handshakes.remove(&self.id);
        table.connected.remove(&self.id);
        if let Some(count) = table.by_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                table.by_address.remove(&self.address);
            }
        }
        if let Some(expires) = self.expires {
            table.by_expiry.remove(&(expires, self.id));
        }
        if let Some(thumbprint) = self.known
            && let Some(of_certificate) = table.by_thumbprint.get_mut(&thumbprint)
        {
            of_certificate.remove(&self.id);
            if of_certificate.is_empty() {
                table.by_thumbprint.remove(&thumbprint);
            }
        }
    }
}

/// The address a connection counts for: one customer usually has a whole IPv6 /64.
fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn table(connections: usize, per_address: usize, handshakes: usize) -> Arc<Connections> {
        Connections::new(Bounds {
            connections_max: connections,
            per_address_max: per_address,
            handshakes_max: handshakes,
            handshake_timeout: Duration::from_secs(1),
        })
    }

    fn from(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    fn certificate(name: &[u8]) -> PeerCertificate {
        PeerCertificate { thumbprint: Thumbprint::of(name), der: name.into() }
    }

    #[test]
    fn connections_are_bounded_in_all_and_by_address() {
        let connections = table(3, 2, 10);
        let _a = connections.admit(from("10.0.0.1:1")).unwrap();
        let b = connections.admit(from("[::ffff:10.0.0.1]:2")).unwrap();
        assert_eq!(connections.admit(from("10.0.0.1:3")).err(), Some(Full::Address));
        let _c = connections.admit(from("10.0.0.2:1")).unwrap();
        assert_eq!(connections.admit(from("10.0.0.3:1")).err(), Some(Full::Listener));
        drop(b);
        assert_eq!(connections.open(), 2);
        let _d = connections.admit(from("10.0.0.1:4")).unwrap();
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let connections = table(10, 1, 10);
        let _a = connections.admit(from("[2001:db8::1]:1")).unwrap();
        assert_eq!(connections.admit(from("[2001:db8::2]:1")).err(), Some(Full::Address));
        let _b = connections.admit(from("[2001:db8:0:1::2]:1")).unwrap();
    }

    #[test]
    fn the_oldest_handshake_makes_room_for_the_newest() {
        let connections = table(10, 10, 2);
        let oldest = connections.admit(from("10.0.0.1:1")).unwrap();
        let second = connections.admit(from("10.0.0.1:2")).unwrap();
        let third = connections.admit(from("10.0.0.1:3")).unwrap();
        assert!(oldest.evicted.is_cancelled());
        assert!(!second.evicted.is_cancelled() && !third.evicted.is_cancelled());
    }

    #[test]
    fn a_finished_handshake_is_never_evicted() {
        let connections = table(10, 10, 1);
        let mut first = connections.admit(from("10.0.0.1:1")).unwrap();
        let _ = first.connected(None);
        let _second = connections.admit(from("10.0.0.1:2")).unwrap();
        assert!(!first.evicted.is_cancelled());
    }

    #[test]
    fn a_revocation_reaches_the_connections_of_that_certificate_alone() {
        let connections = table(10, 10, 10);
        let mut slots: Vec<Slot> =
            (1..=3).map(|_| connections.admit(from("10.0.0.1:1")).unwrap()).collect();
        let (alice, bob) = (certificate(b"alice"), certificate(b"bob"));
        let first = slots[0].connected(Some(alice.clone()));
        let second = slots[1].connected(Some(alice.clone()));
        let other = slots[2].connected(Some(bob));
        connections.revoke(&[alice.thumbprint]);
        assert_eq!(first.ending.reason(), Some(Reason::RightsLost));
        assert!(second.ending.token().is_cancelled() && !other.ending.token().is_cancelled());
        assert_eq!(connections.of(&alice.thumbprint), 2);
        drop(slots);
        assert_eq!((connections.of(&alice.thumbprint), connections.open()), (0, 0));
        assert!(connections.table.lock().by_address.is_empty());
    }

    #[test]
    fn a_cut_ends_what_it_names_and_counts_what_it_ended() {
        let connections = table(10, 10, 10);
        let mut slots: Vec<Slot> =
            (1..=5).map(|_| connections.admit(from("10.0.0.1:1")).unwrap()).collect();
        let (alice, bob) = (certificate(b"alice"), certificate(b"bob"));
        let first = slots[0].connected(Some(alice.clone()));
        let second = slots[1].connected(Some(alice.clone()));
        let other = slots[2].connected(Some(bob.clone()));
        let anonymous = slots[3].connected(None);
        let cut = |whose: &[Thumbprint], only| connections.cut(whose, only);
        assert_eq!(cut(&[], None), 0, "nobody is named");
        assert_eq!(cut(&[alice.thumbprint], Some(other.id)), 0, "it is another's");
        assert_eq!(cut(&[alice.thumbprint], Some(first.id)), 1);
        assert_eq!(first.ending.reason(), Some(Reason::Cut));
        assert_eq!(cut(&[alice.thumbprint, bob.thumbprint], None), 2, "one of three ended before");
        assert!(second.ending.token().is_cancelled() && other.ending.token().is_cancelled());
        assert_eq!(anonymous.ending.reason(), None);
        assert_eq!(cut(&[alice.thumbprint, bob.thumbprint], None), 0);
        // What connects again is not touched.
        let again = slots[4].connected(Some(alice));
        assert_eq!(again.ending.reason(), None);
    }

    #[test]
    fn connections_are_listed_by_age_a_page_at_a_time() {
        let connections = table(10, 10, 10);
        let mut slots: Vec<Slot> =
            (1..=6).map(|_| connections.admit(from("10.0.0.1:1")).unwrap()).collect();
        let (alice, bob) = (certificate(b"alice"), certificate(b"bob"));
        let who = [Some(&alice), None, Some(&bob), Some(&alice), Some(&alice)];
        let open: Vec<u64> = who
            .iter()
            .zip(&mut slots)
            .map(|(who, slot)| slot.connected(who.map(|it| (*it).clone())).id)
            .collect();
        let check = |whose: &[Thumbprint], after, limit, expected: (&[usize], usize)| {
            let (page, total) = connections.list(whose, after, limit);
            let page: Vec<u64> = page.iter().map(|it| it.id).collect();
            let ids: Vec<u64> = expected.0.iter().map(|at| open[*at]).collect();
            assert_eq!((page, total), (ids, expected.1), "after {after}, {limit}");
        };
        let (a, b) = (alice.thumbprint, bob.thumbprint);
        check(&[], 0, 100, (&[0, 1, 2, 3, 4], 5));
        check(&[], 0, 2, (&[0, 1], 5));
        check(&[], open[1], 2, (&[2, 3], 5));
        check(&[], open[4], 2, (&[], 5));
        check(&[a], 0, 2, (&[0, 3], 3));
        check(&[a], open[3], 2, (&[4], 3));
        check(&[b, a], 0, 3, (&[0, 2, 3], 4));
        check(&[a], 0, 0, (&[], 3));
        check(&[Thumbprint::of(b"nobody")], 0, 9, (&[], 0));
        drop(slots);
        assert_eq!(connections.list(&[], 0, 9).1, 0, "closed ones are forgotten");
    }

    #[test]
    fn calls_are_counted_and_the_last_one_has_its_time() {
        let connections = table(10, 10, 10);
        let mut slot = connections.admit(from("10.0.0.1:1")).unwrap();
        let connection = slot.connected(None);
        assert_eq!((connection.calls(), connection.last_call()), (0, None));
        connection.called();
        connection.called();
        assert_eq!(connection.calls(), 2);
        let last = connection.last_call().unwrap();
        assert!(last >= connection.opened && last.0 < connection.opened.0 + 60_000);
    }

    #[test]
    fn an_expired_certificate_ends_its_connections_and_no_others() {
        let connections = table(10, 10, 10);
        let identity = crate::tls::testing::identity("alice");
        let der = identity.certificate_der();
        let real = PeerCertificate { thumbprint: Thumbprint::of(der), der: der.as_ref().into() };
        let last = not_after(&real).unwrap();
        let mut slots: Vec<Slot> =
            (1..=4).map(|_| connections.admit(from("10.0.0.1:1")).unwrap()).collect();
        let first = slots[0].connected(Some(real.clone()));
        let unreadable = slots[1].connected(Some(certificate(b"bob")));
        let anonymous = slots[2].connected(None);
        assert_eq!(connections.expire(last), 0, "its last millisecond");
        assert_eq!(connections.expire(Timestamp(last.0 + 1)), 1);
        assert_eq!(first.ending.reason(), Some(Reason::Expired));
        connections.revoke(&[real.thumbprint]);
        assert_eq!(first.ending.reason(), Some(Reason::Expired), "the first reason stays");
        assert_eq!((unreadable.ending.reason(), anonymous.ending.reason()), (None, None));
        assert_eq!(connections.expire(Timestamp(i64::MAX)), 0);
        let late = slots[3].connected(Some(real));
        drop(slots);
        assert_eq!(connections.expire(Timestamp(i64::MAX)), 0, "closed ones are forgotten");
        assert_eq!(late.ending.reason(), None);
        assert!(connections.table.lock().by_expiry.is_empty());
    }
}

//! Every bound of the node in one place: queues, messages, names, documents, times.

use std::time::Duration;

/// Longest handshake of a client or peer connection, from accept to the end of TLS.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Open connections of the client listener, handshakes included.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Open connections from one address.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 2_000;
/// Handshakes under way at once on the client listener.
pub const HANDSHAKES_MAX: usize = 1_000;
/// Largest client certificate in bytes of DER.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// Largest upload that is searched for certificates, in bytes: a full container with its chain and keys.
pub const UPLOAD_BYTES_MAX: usize = 256 * 1024;
/// Most certificates of one upload, those of authorities included.
pub const UPLOAD_CERTIFICATES_MAX: usize = 16;
/// Most parts (SafeContents) of a PKCS#12 file.
pub const PKCS12_PARTS_MAX: usize = 16;
/// Most SafeBags of a PKCS#12 file, at all depths: certificates, keys, lists, and what nobody knows.
pub const PKCS12_BAGS_MAX: usize = 64;
/// Deepest nesting of SafeBags in SafeBags.
pub const PKCS12_DEPTH_MAX: usize = 4;
/// Most rounds of one key derivation in a PKCS#12 file.
pub const PKCS12_ROUNDS_MAX: u64 = 1_000_000;
/// Most rounds of all key derivations that reading one PKCS#12 file takes: below a second of one core.
pub const PKCS12_ROUNDS_TOTAL_MAX: u64 = 2_000_000;
/// Longest password of an uploaded PKCS#12 file in bytes.
pub const PKCS12_PASSWORD_BYTES_MAX: usize = 1_024;
/// Largest certificate request (PKCS#10) in bytes.
pub const CERTIFICATE_REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Certificates and containers that are made or opened at once: each keeps a core busy.
pub const CERTIFICATE_WORK_MAX: usize = 2;
/// Calls that wait until they may make or open one.
pub const CERTIFICATE_WORK_WAITING_MAX: usize = 64;
/// Most certificates by which a node is known besides the one in force.
pub const NODE_CERTIFICATES_MAX: usize = 7;
/// Longest reason that a node gives for a step it cannot take, in characters.
pub const NODE_ERROR_CHARS_MAX: usize = 500;
/// Largest sealed private key in bytes.
pub const SEALED_KEY_BYTES_MAX: usize = 16 * 1024;
/// Most host names and addresses of a node certificate.
pub const NODE_CERTIFICATE_NAMES_MAX: usize = 100;
/// Longest client certificate chain.
pub const CERTIFICATE_CHAIN_MAX: usize = 3;
/// Concurrent HTTP/2 streams of one client connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Largest gRPC message of a client in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest message between peers in bytes: one client message and its envelope.
pub const PEER_MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest time a call may take; a client's longer deadline is cut to it.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// Time a call may take whose client set no deadline.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

/// Largest JSON document in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Deepest nesting of a JSON document.
pub const DOCUMENT_DEPTH_MAX: usize = 64;
/// Most members and elements of one JSON document, all levels together.
pub const DOCUMENT_MEMBERS_MAX: usize = 100_000;
/// Longest member name in bytes.
pub const MEMBER_NAME_BYTES_MAX: usize = 64 * 1024;
/// Longest document id in bytes.
pub const DOCUMENT_ID_BYTES_MAX: usize = 512;
/// Longest collection name in bytes.
pub const COLLECTION_BYTES_MAX: usize = 128;
/// Most writes of one batch.
pub const BATCH_WRITES_MAX: usize = 10_000;
/// Largest batch in bytes of documents.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest database name in bytes.
pub const DATABASE_NAME_BYTES_MAX: usize = 128;
/// Longest certificate name in characters.
pub const CERTIFICATE_NAME_CHARS_MAX: usize = 128;
/// Longest note on a certificate in characters.
pub const NOTE_CHARS_MAX: usize = 1_024;
/// Longest owner of a certificate in characters.
pub const OWNER_CHARS_MAX: usize = 128;
/// Most certificates of one entry: a primary and its secondaries.
pub const ENTRY_CERTIFICATES_MAX: usize = UPLOAD_CERTIFICATES_MAX;
/// Most entries that one purge changes.
pub const PURGED_MAX: usize = 1_000;
/// Most entries that a list sorts; where more may pass its filters, it walks them in their order instead.
pub const LIST_SORTED_MAX: usize = 4_096;
/// Most grants of one certificate.
pub const GRANTS_MAX: usize = 1_000;
/// Most databases of a cluster.
pub const DATABASES_MAX: usize = 10_000;
/// Largest keyring in bytes: some 46,000 keys.
pub const KEYRING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Least and most memory of the derivation of a master key from a passphrase, in KiB (Argon2id, RFC 9106).
pub const KDF_MEMORY_KIB: std::ops::RangeInclusive<u32> = 19 * 1024..=1024 * 1024;
/// Least and most passes of the same.
pub const KDF_PASSES: std::ops::RangeInclusive<u32> = 1..=16;
/// Least and most lanes of the same.
pub const KDF_LANES: std::ops::RangeInclusive<u32> = 1..=16;
/// Least and most bytes of a passphrase.
pub const PASSPHRASE_BYTES: std::ops::RangeInclusive<usize> = 12..=1024;
/// Most records that are sealed again in one step of a rotation.
pub const RESEAL_RECORDS_MAX: usize = 128;
/// Most bytes that are sealed again in one step of a rotation.
pub const RESEAL_BYTES_MAX: usize = 1024 * 1024;
/// Most records that are looked at in one step of a rotation.
pub const RESEAL_LOOKS_MAX: usize = 8 * 1024;
/// Most failures that a verification of a store lists; it counts them all.
pub const VERIFY_FAILURES_MAX: usize = 100;
/// Largest record of the durable sentinel in bytes: some 40,000 groups.
pub const SENTINEL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most nodes of a cluster.
pub const NODES_MAX: usize = 64;
/// Most open join tokens.
pub const JOIN_TOKENS_MAX: usize = 100;
/// Page size of a list where none was asked for.
pub const PAGE_SIZE_DEFAULT: usize = 100;
/// Largest page of a list.
pub const PAGE_SIZE_MAX: usize = 1_000;
/// Most bytes of documents in one page.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest page token in characters.
pub const PAGE_TOKEN_CHARS_MAX: usize = 2_048;

/// How long the result of a request id is kept.
pub const REQUEST_RESULT_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Entries of its log for which the result of a request id is kept in any case, wherever clocks jump: more than are
/// written while a copy of the request can be under way.
pub const REQUEST_RESULT_KEPT_ENTRIES: u64 = 65_536;
/// Bytes of log entries in one append message (at least one entry is sent).
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of records in one snapshot chunk.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Longest key of a replicated state in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 4 * 1024;
/// Largest value of a replicated state in bytes: a kept result, or a document and its envelope.
pub const STATE_VALUE_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Largest chunk of a snapshot in bytes: a full one, its header, and one record.
pub const SNAPSHOT_MESSAGE_BYTES_MAX: usize =
    SNAPSHOT_CHUNK_BYTES_MAX + STATE_KEY_BYTES_MAX + STATE_VALUE_BYTES_MAX + 1024 * 1024;
/// Most entries that are applied in one batch.
pub const APPLY_ENTRIES_MAX: usize = 1_024;
/// Bytes of commands that are applied in one batch (at least one entry is).
pub const APPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Jobs of all groups that wait for the committer.
pub const COMMIT_QUEUE_JOBS_MAX: usize = 4_096;
/// Bytes of all groups' entries that wait for the committer.
pub const COMMIT_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of entries in one write of the committer (at least one job is written).
pub const COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of recent log entries that one group keeps in memory.
pub const LOG_CACHE_GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of recent log entries that all groups together keep in memory, besides those that are not written yet.
pub const LOG_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Log entries of a snapshot that a node still keeps, for followers that are or were behind.
pub const LOG_ENTRIES_HELD_MAX: u64 = 20_000;
/// Bytes of a disk that must be free for more entries than those to be kept while a follower is sent a snapshot.
pub const LOG_HELD_ROOM_MIN: u64 = 2 * 1024 * 1024 * 1024;
/// Calls that wait for an answer on one peer channel.
pub const PEER_CALLS_MAX: usize = 16_384;
/// Margin for clocks that run at different speed, added to every lease that is waited out; also for what passes between
/// two looks at a clock.
pub const DRIFT_MARGIN: Duration = Duration::from_millis(50);
/// The margin of long leases: this part of the lease. Clocks that are slewed differ by a thousandth.
pub const DRIFT_SHARE: u32 = 100;
/// Longest life of a stream that a server sends, whatever it is about; its client opens another one.
pub const STREAM_LIFE_MAX: Duration = Duration::from_secs(3600);
/// Time between two looks for connections whose certificates have expired.
pub const EXPIRY_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Longest life of a join token.
pub const JOIN_TOKEN_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A group's kept results are pruned at log positions that are multiples of this.
pub const RESULTS_PRUNED_EVERY: u64 = 64;
/// Most kept results that one entry prunes; more than arrive between two prunings.
pub const RESULTS_PRUNED_MAX: usize = 256;
/// Longest advertised address in bytes.
pub const ADDRESS_BYTES_MAX: usize = 260;
/// Longest id of a join token in bytes.
pub const JOIN_TOKEN_ID_BYTES_MAX: usize = 64;
/// Most names that one refusal lists.
pub const REFUSAL_NAMES_MAX: usize = 20;

/// Open connections of the peer listener: a few for each pair of nodes.
pub const PEER_CONNECTIONS_MAX: usize = 512;
/// Connections that the kernel completes before they are accepted.
pub const ACCEPT_BACKLOG: u32 = 1_024;
/// Rest after an accept that failed for want of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Bytes of one request's headers.
pub const HEADER_LIST_BYTES_MAX: u32 = 32 * 1024;
/// Longest time for the headers of an HTTP/1.1 request, and the longest rest between two.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time from the end of the handshake to the first request.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Silence on an HTTP/2 connection after which it is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Longest time a ping may stay unanswered.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection outlives the rights of its certificate, so that its next call is refused with an explanation.
pub const REVOKED_CONNECTION_LINGER: Duration = Duration::from_secs(2);
/// How long open calls may go on when the node shuts down.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// What a call may run over its deadline, so that its own answer comes before the cut.
pub const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// Calls under way at once on the ops listener and on the admin socket.
pub const LOCAL_CONNECTIONS_MAX: usize = 64;
/// Longest password of a generated certificate package in characters.
pub const PASSWORD_CHARS_MAX: usize = 128;
/// Lifetime of a generated certificate where none was asked for.
pub const CERTIFICATE_LIFE_DEFAULT: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// Longest lifetime of a generated certificate.
pub const CERTIFICATE_LIFE_MAX: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Life of a join token where none was asked for.
pub const JOIN_TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(3600);
/// Reads of one group that wait for a read index.
pub const READS_WAITING_MAX: usize = 65_536;
/// How long a call waits for freshness of the registry before it is told to try again.
pub const FRESHNESS_WAIT: Duration = Duration::from_secs(2);
/// How long a node asks one peer before it takes the peer for silent.
pub const PEER_ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Longest attempt to reach a peer: name, TCP, TLS and Hello together.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Shortest and longest pause between attempts to reach a peer.
pub const PEER_RECONNECT_PAUSE: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(1));
/// Largest message of a probe, which anybody with a certificate may send, in bytes.
pub const PROBE_BYTES_MAX: usize = 4 * 1024;
/// Time between HTTP/2 pings on a peer connection, idle or not.
pub const PEER_PING_INTERVAL: Duration = Duration::from_secs(2);
/// Time for the answer to such a ping; together with the interval: how long a dead peer goes unnoticed.
pub const PEER_PING_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2 flow control window of a peer connection and of each of its streams, in bytes.
pub const PEER_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// How long a stream whose place another one took may take for its last answers.
pub const PEER_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames that wait to be written to one peer channel.
pub const PEER_QUEUE_FRAMES_MAX: usize = 1_024;
/// Bytes of frames that wait to be written to one peer channel.
pub const PEER_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Appends of one group under way to one peer, not yet answered.
pub const PEER_APPENDS_PER_GROUP_MAX: usize = 64;
/// Appends of one group that a node has taken from one peer and not yet answered; those of abandoned calls included.
pub const PEER_APPENDS_TAKEN_MAX: usize = 256;
/// Time for the answer to one append; a disk may stall for a while without the entries being sent again.
pub const PEER_APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Consensus calls (votes, read indexes, freshness) of one peer that are served at once.
pub const PEER_CONTROL_SERVED_MAX: usize = 8_192;
/// Forwarded calls of one peer that are served at once.
pub const PEER_FORWARDS_SERVED_MAX: usize = 2_048;
/// Snapshots that a node receives at once.
pub const SNAPSHOTS_RECEIVED_MAX: usize = 2;
/// Longest pause between two messages of a snapshot.
pub const SNAPSHOT_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest transfer and installation of a snapshot.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How long log entries are held for a follower after a snapshot was sent to it.
pub const SNAPSHOT_GRACE: Duration = Duration::from_secs(30);
/// How long a call whose group was stopped elsewhere waits for the news that its database was deleted.
pub const DELETION_NEWS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the acknowledgement of a cluster command that only adds waits for nodes that have not applied it.
pub const GRANT_KNOWN_WAIT: Duration = Duration::from_millis(500);

// ---- durability ----

/// How long a node's word counts that its disk is full, and the least time between two attempts to hand over for it.
pub const FULLNESS_REMEMBERED: Duration = Duration::from_secs(5);
/// Bounds of the reserve of the data folder in MiB.
pub const RESERVE_MIB: std::ops::RangeInclusive<u64> = 16..=65_536;
/// Sessions that a data folder tells others of, so that many starts without a peer to hear of them are no harm.
pub const FOLDER_SESSIONS_TOLD: usize = 64;
/// How often a folder whose logs grow tells its peers that it is older: what is written within may be rolled back unseen.
pub const FOLDER_TICK_INTERVAL: Duration = Duration::from_secs(1);

// ---- audit ----

/// Most records that the audit log keeps; beyond it the oldest are pruned, up to a checkpoint.
pub const AUDIT_RECORDS_MAX: u64 = 1_000_000;
/// Most bytes of kept audit records; beyond it the oldest are pruned, up to a checkpoint.
pub const AUDIT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Longest text in an audit record, in characters; what is longer is cut and has its digest behind it.
pub const AUDIT_TEXT_CHARS_MAX: usize = 256;
/// Longest list in an audit record in characters: every grant of a full certificate.
pub const AUDIT_LIST_CHARS_MAX: usize = 64 * 1024;
/// Most changed records that one audit record lists.
pub const AUDIT_CHANGES_MAX: usize = 1_024;
/// Most fields of a command or a record that an audit record lists.
pub const AUDIT_FIELDS_MAX: usize = 32;
/// New records after which the leader makes a checkpoint without waiting for the interval.
pub const AUDIT_CHECKPOINT_RECORDS: u64 = 1_000;
/// Clocks no further apart than this agree.
pub const CLOCKS_AGREE: Duration = Duration::from_secs(5 * 60);
/// How long a new leader waits, after a start of all nodes, for clocks to compare its own with.
pub const CLOCKS_WAITED_FOR: Duration = Duration::from_secs(3);
/// How long a member's clock counts after it was told.
pub const CLOCK_HEARD_FOR: Duration = Duration::from_secs(10);
/// Longest time for which new records stay without a checkpoint.
pub const AUDIT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// Longest line of an audit export in bytes.
pub const AUDIT_LINE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Records that one page of the audit list looks at, whether they fit the filter or not.
pub const AUDIT_LOOKED_AT_MAX: u64 = 20_000;
/// Records that are read at once where the audit log is walked.
pub const AUDIT_CHUNK_RECORDS: u64 = 500;
/// Bytes of records that are read at once there (at least one record is).
pub const AUDIT_CHUNK_BYTES: usize = 1024 * 1024;
/// Walks along the whole audit log (verify, export) that a node makes at once.
pub const AUDIT_WALKS_MAX: usize = 2;
/// Streams of new audit records that a node serves at once.
pub const AUDIT_TAILS_MAX: usize = 64;
/// Messages that wait for the reader of such a stream.
pub const AUDIT_TAIL_QUEUE: usize = 16;
/// How long a stream waits for its reader before the reader is cut off.
pub const AUDIT_TAIL_PATIENCE: Duration = Duration::from_secs(5);
/// Different denials that a node keeps until they are in the log, for registered callers and for all others each.
pub const DENIALS_KEPT_MAX: usize = 512;
/// Denials in one entry of the log.
pub const DENIALS_PER_ENTRY_MAX: usize = 64;
/// Time between two entries with denials of one node.
pub const DENIALS_INTERVAL: Duration = Duration::from_millis(1_000);
/// Records of denials that a node may write without a pause, for registered callers and for all others each.
pub const DENIALS_BURST: u32 = 256;
/// Time in which it may write one more.
pub const DENIALS_REFILL: Duration = Duration::from_secs(5);
/// Most well-known admins that one node declares.
pub const WELL_KNOWN_ADMINS_MAX: usize = 16;
/// Most uses of certificates that one command records.
pub const USES_PER_COMMAND_MAX: usize = 2_000;
/// Most certificates whose uses wait on one node to be recorded; beyond it the newest are not noted.
pub const USES_WAITING_MAX: usize = 100_000;
/// Certificates of one key that renewal keeps.
pub const RENEWALS_PER_KEY_MAX: usize = 5;
/// Renewals that one node asks for at once; other unknown certificates are refused meanwhile.
pub const RENEWALS_AT_ONCE_MAX: usize = 4;
/// Keys that one node remembers to have asked a renewal for; each may ask once a minute.
pub const RENEWAL_KEYS_REMEMBERED_MAX: usize = 1_024;
/// Most notices of expiry that one command notes.
pub const EXPIRY_NOTICES_PER_COMMAND_MAX: usize = 500;
/// Time between two looks of the leader for certificates that expire.
pub const EXPIRY_NOTICE_INTERVAL: Duration = Duration::from_secs(60);
/// Longest reason of a command that the owner of a node's files gives, in bytes.
pub const OWNER_REASON_BYTES_MAX: usize = 64;
/// Life of a second-factor session where none was asked for.
pub const SESSION_LIFE_DEFAULT: Duration = Duration::from_secs(2 * 3600);
/// Longest life of a second-factor session.
pub const SESSION_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Wrong codes of one certificate, within [`WRONG_CODE_WINDOW`], that lock its second factor.
pub const WRONG_CODES_MAX: usize = 5;
/// How long a wrong code counts.
pub const WRONG_CODE_WINDOW: Duration = Duration::from_secs(5 * 60);
/// How long a second factor is locked.
pub const SECOND_FACTOR_LOCK: Duration = Duration::from_secs(5 * 60);
/// Longest sealed content of a second factor in bytes.
pub const SECOND_FACTOR_BYTES_MAX: usize = 2 * 1024;
/// Longest cluster secret, sealed to one node, in bytes.
pub const SEALED_SECRET_BYTES_MAX: usize = 256;
/// Cluster secrets that are in use at once: the current one and those that a rotation is replacing.
pub const CLUSTER_SECRETS_MAX: usize = 8;
/// Code checks that one node makes at once; further ones are told to come back.
pub const CODE_CHECKS_MAX: usize = 64;
/// How long a write of the logs may take until the node hands over what it leads. Longer than a slow fsync, short enough
/// for writes to go on within two election timeouts and a second.
pub const DISK_STALL: Duration = Duration::from_millis(1_500);
/// How long a node that handed over for its disk does not do so again.
pub const DISK_STALL_PAUSE: Duration = Duration::from_secs(10);
/// How long a node may be without a fresh registry until it hands over the databases that it leads. Longer than an election
/// of the cluster group usually takes beyond a lease, short enough for writes to go on within two election timeouts and a
/// second.
pub const ESTRANGED: Duration = Duration::from_secs(1);
/// How long a node that handed over for that does not do so again.
pub const ESTRANGED_PAUSE: Duration = Duration::from_secs(5);
/// How often the state of every group is hashed anew and compared with the hash that is kept.
pub const SCRUB_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);
/// Pause before each state, so that a start and the looks at many databases do not come all at once.
pub const SCRUB_PAUSE: Duration = Duration::from_millis(500);
/// Records of a state that are hashed without a pause.
pub const SCRUB_PIECE_RECORDS: u64 = 512;

// ---- monitoring ----

/// How often the calls of a node become a sample.
pub const METRICS_INTERVAL: Duration = Duration::from_secs(10);
/// How long samples are kept; in memory alone.
pub const METRICS_KEPT: Duration = Duration::from_secs(3600);

// ---- backups ----

/// Bytes of content in a chunk of an encrypted backup, where nothing else is asked for.
pub const BACKUP_CHUNK_BYTES: usize = 64 * 1024;
/// Fewest bytes of content in a chunk of an encrypted backup.
pub const BACKUP_CHUNK_BYTES_MIN: usize = 1024;
/// Most bytes of content in a chunk of an encrypted backup: what a reader keeps in memory.
pub const BACKUP_CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes of a form of the Studio: a document at its bound, in a form's encoding.
pub const STUDIO_FORM_BYTES_MAX: usize = 20 * 1024 * 1024;
/// How long a page follows something before it loads itself again; each look in between is decided anew.
pub const STUDIO_STREAM_LIFE: Duration = Duration::from_secs(15 * 60);
/// Pause between two looks of a page that follows something.
pub const STUDIO_LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Bytes of a larger form that are read all the same, so that its sender sees the answer.
pub const STUDIO_FORM_BYTES_DRAINED: usize = 4 * STUDIO_FORM_BYTES_MAX;
/// Longest time for a form to arrive.
pub const STUDIO_FORM_TIME_MAX: Duration = Duration::from_secs(60);
/// Time of a call that a page of the Studio makes: less than the page itself has, so that it can tell what came of it.
pub const STUDIO_CALL_TIME_MAX: Duration = Duration::from_secs(25);
/// Largest document that a page offers to edit, in bytes. A larger one is offered as a file.
pub const STUDIO_EDITED_BYTES_MAX: usize = 256 * 1024;

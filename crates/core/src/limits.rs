//! Every bound of the system in one place. Past a bound the caller gets `resource_exhausted` or `invalid_input`.

use std::time::Duration;

/// Bytes in a KiB.
const KIB: usize = 1024;
/// Bytes in a MiB.
const MIB: usize = 1024 * KIB;

/// Largest workflow file accepted, bytes.
pub const WORKFLOW_FILE_BYTES_MAX: usize = MIB;
/// Largest definition as it is kept and run, bytes of JSON: a file's aliases expanded.
pub const DEFINITION_BYTES_MAX: usize = 2 * MIB;
/// Most definitions that one of a node's caches of them keeps.
pub const DEFINITIONS_KEPT_MAX: usize = 256;
/// Most bytes of JSON that the definitions in one of a node's caches have together.
pub const DEFINITIONS_KEPT_BYTES_MAX: usize = 16 * MIB;
/// Most memory that a node's compiled definitions take together, bytes, as estimated.
pub const COMPILED_BYTES_MAX: usize = 64 * MIB;
/// Largest job input, bytes of JSON.
pub const INPUT_BYTES_MAX: usize = MIB;
/// Largest job output, bytes of JSON.
pub const OUTPUT_BYTES_MAX: usize = MIB;
/// Largest result of one effect, bytes of JSON.
pub const EFFECT_RESULT_BYTES_MAX: usize = MIB;
/// Largest journal of one job, bytes.
pub const JOURNAL_BYTES_MAX: u64 = 64 * MIB as u64;
/// Most jobs that may be queued at a site.
pub const QUEUE_JOBS_MAX: u64 = 1_000_000;
/// Most jobs of a site that may be on their way to other sites.
pub const OUTBOX_JOBS_MAX: u64 = 100_000;
/// Most moves, reports and wishes in one message of the courier.
pub const LETTER_ITEMS_MAX: usize = 512;
/// Largest message of the courier, bytes, as far as it can be split.
pub const LETTER_BYTES_MAX: usize = 256 * KIB;
/// Most bytes of blobs on their way in from other sites at once.
pub const INCOMING_BLOB_BYTES_MAX: usize = 16 * MIB;
/// Most rows of decided moves that are forgotten in one log entry.
pub const ARRIVALS_PASSED_PER_ENTRY_MAX: usize = 2_000;
/// Largest message between actors of two nodes, bytes.
pub const ACTOR_MESSAGE_BYTES_MAX: usize = 256 * KIB;
/// Largest log entry, bytes: a batch of commands stops before it.
pub const ENTRY_BYTES_MAX: usize = 128 * KIB;
/// Content above this many bytes becomes a blob instead of riding in the log.
pub const INLINE_BYTES_MAX: usize = 32 * KIB;
/// Chunk of a streamed snapshot or blob, bytes.
pub const CHUNK_BYTES: usize = 128 * KIB;
/// Largest gRPC message accepted, bytes.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 4 * MIB;
/// Most client and peer connections of one node.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Most connections of the HTTP listener; past it new ones wait until one ends.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// How long a caller of the HTTP listener may take over the head of a request, the wait for the next one included.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one connection of the HTTP listener may last; whoever asks regularly connects again.
pub const HTTP_CONNECTION_LIFE_MAX: Duration = Duration::from_secs(600);
/// Most TLS handshakes under way at once, counted apart from connections.
pub const HANDSHAKES_PENDING_MAX: usize = 256;
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most due timers that fire in one log entry.
pub const TIMERS_PER_ENTRY_MAX: usize = 1_000;
/// How long an ended job is kept at least, with its result and its idempotency key.
pub const ENDED_JOBS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Most jobs that are forgotten in one log entry.
pub const FORGOTTEN_JOBS_PER_ENTRY_MAX: usize = 100;
/// Most rows of a kind that are forgotten in one log entry.
pub const FORGOTTEN_ROWS_PER_ENTRY_MAX: usize = 2_000;
/// How long the interpreter may take for one event of a journal, by the wall clock, before the job fails. Its own budget of
/// steps, which is the same everywhere, ends far sooner on any machine that is not stuck.
pub const INTERPRETER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most threads of a node that are stuck in an interpreter and had another put in their place.
pub const INTERPRETER_THREADS_STUCK_MAX: usize = 8;
/// How long a robot may finish a job cut off that says `onDisconnect: finish` and no time.
pub const FINISH_WITHIN_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// How often a robot may be lost under one job before it is dead-lettered.
pub const LOST_MAX_DEFAULT: u32 = 5;
/// Captured stdout or stderr of one process, bytes.
pub const PROCESS_OUTPUT_BYTES_MAX: usize = MIB;
/// Tail of stdout or stderr kept in the journal for each effect, bytes.
pub const LOG_TAIL_BYTES_MAX: usize = 64 * KIB;
/// What the processes of jobs printed, kept whole on one robot's disk, bytes of all jobs together; the oldest goes first.
pub const JOB_LOGS_BYTES_MAX: u64 = 512 * MIB as u64;
/// Free bytes below which a node's store refuses admissions.
pub const STORE_RESERVE_BYTES: u64 = 256 * MIB as u64;
/// Highest priority; the lowest is 0.
pub const PRIORITY_MAX: u8 = 20;
/// Priority of a job that names none.
pub const PRIORITY_NORMAL: u8 = 10;
/// Longest idempotency key, bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Most tags of a node or a job.
pub const TAGS_MAX: usize = 64;
/// Longest tag or node name, bytes.
pub const TAG_BYTES_MAX: usize = 63;
/// Longest `host:port` of a node, bytes: the longest name that DNS knows, and a port.
pub const ADDRESS_BYTES_MAX: usize = 253 + 6;
/// Most slots of one robot.
pub const SLOTS_MAX: u32 = 4_096;
/// Most entries of the catalog that a node may add to.
pub const CATALOG_ENTRIES_MAX: usize = 100_000;
/// Most bytes that the catalog's entries have together, as they are kept, that a node may add to.
pub const CATALOG_BYTES_MAX: u64 = 256 * MIB as u64;
/// Largest entry of the catalog as it is kept and travels, bytes: a workflow file, deflated, and what names it.
pub const CATALOG_ENTRY_BYTES_MAX: usize = MIB + 64 * KIB;
/// How far ahead of a node's wall clock a write of the catalog may be stamped; a later one waits for its time.
pub const CATALOG_CLOCK_AHEAD_MAX: Duration = Duration::from_secs(10 * 60);
/// Bytes of one message of the catalog over a link between sites, an entry larger than that left out.
pub const CATALOG_FRAME_BYTES: usize = 16 * KIB;
/// Most addresses that are kept of another site's nodes.
pub const SITE_CONTACTS_MAX: usize = 16;

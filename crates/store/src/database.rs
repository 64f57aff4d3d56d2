//! The redb file: which tables it has, and how it is created, checked and brought to the newest schema.

use fleet_core::{GroupId, NodeId};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::Error;
use crate::transaction::StateTransaction;

/// Definition of a table of byte rows.
type ByteTable = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// A table of byte rows open for writing.
pub(crate) type ByteRows<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// Facts about the node: name → bytes.
pub(crate) const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");
/// Log entries: group ‖ index → entry.
pub(crate) const LOG: ByteTable = TableDefinition::new("raft_log");
/// Small facts of a group's log: group ‖ [`LogFact`] → record.
pub(crate) const LOG_FACTS: ByteTable = TableDefinition::new("raft_facts");
/// The replicated state: group ‖ table number ‖ key → record.
pub(crate) const STATE: ByteTable = TableDefinition::new("state");
/// Remembered members: node → record.
pub(crate) const MEMBERS: ByteTable = TableDefinition::new("members");
/// Content-addressed blobs: digest ‖ part → bytes.
pub(crate) const BLOBS: ByteTable = TableDefinition::new("blobs");
/// The catalog, outside every group: key → entry.
pub(crate) const CATALOG: ByteTable = TableDefinition::new("catalog");
/// Rows of a snapshot on its way in: keyed as in the state.
pub(crate) const SPOOL: ByteTable = TableDefinition::new("state_incoming");

/// What robots of this node wrote down by themselves: job ‖ fence → head, job ‖ fence ‖ position → record.
pub(crate) const OWN_JOURNAL: ByteTable = TableDefinition::new("own_journal");

/// Every table of bytes, created when the file is first opened by a version that knows it.
const BYTE_TABLES: [ByteTable; 8] = [LOG, LOG_FACTS, STATE, MEMBERS, BLOBS, CATALOG, SPOOL, OWN_JOURNAL];

/// The newest schema.
pub(crate) const SCHEMA_VERSION: u32 = 1;
/// Meta row that holds the schema's version, big-endian.
const SCHEMA_ROW: &str = "schema_version";
/// Meta row that holds the node's id.
const NODE_ROW: &str = "node_uuid";

/// The tables of one write transaction, each opened when first needed and once only.
pub(crate) struct Tables<'txn> {
    transaction: &'txn WriteTransaction,
    log: Option<ByteRows<'txn>>,
    log_facts: Option<ByteRows<'txn>>,
    state: Option<StateTransaction<'txn>>,
}

impl<'txn> Tables<'txn> {
    pub(crate) fn new(transaction: &'txn WriteTransaction) -> Self {
        Self { transaction, log: None, log_facts: None, state: None }
    }

    /// The log entries.
    pub(crate) fn log(&mut self) -> Result<&mut ByteRows<'txn>, Error> {
        open_once(self.transaction, &mut self.log, LOG)
    }

    /// The facts of logs.
    pub(crate) fn log_facts(&mut self) -> Result<&mut ByteRows<'txn>, Error> {
        open_once(self.transaction, &mut self.log_facts, LOG_FACTS)
    }

    /// The state of `group`.
    pub(crate) fn state(&mut self, group: GroupId) -> Result<&mut StateTransaction<'txn>, Error> {
        let state = match self.state.take() {
            Some(state) => state.into_group(group),
            None => StateTransaction::new(group, open(self.transaction, STATE)?),
        };
        Ok(self.state.insert(state))
    }

    /// A table that few operations need.
    pub(crate) fn other(&self, table: ByteTable) -> Result<ByteRows<'txn>, Error> {
        open(self.transaction, table)
    }

    /// The facts about the node.
    pub(crate) fn meta(&self) -> Result<Table<'txn, &'static str, &'static [u8]>, Error> {
        self.transaction.open_table(META).map_err(|error| Error::database("open a table", error))
    }
}

fn open(transaction: &WriteTransaction, table: ByteTable) -> Result<ByteRows<'_>, Error> {
    transaction.open_table(table).map_err(|error| Error::database("open a table", error))
}

fn open_once<'a, 'txn>(
    transaction: &'txn WriteTransaction,
    slot: &'a mut Option<ByteRows<'txn>>,
    table: ByteTable,
) -> Result<&'a mut ByteRows<'txn>, Error> {
    let rows = match slot.take() {
        Some(rows) => rows,
        None => open(transaction, table)?,
    };
    Ok(slot.insert(rows))
}

/// Creates what a new file needs, or checks and migrates what an old one has. Returns the node's id, which is minted
/// with the file: so a wiped node never comes back under its old id.
pub(crate) fn prepare(database: &Database) -> Result<NodeId, Error> {
    let transaction = database.begin_write().map_err(|error| Error::database("prepare the store", error))?;
    let node = {
        let mut meta = transaction.open_table(META).map_err(|error| Error::database("prepare the store", error))?;
        let schema = read_meta_row(&meta, SCHEMA_ROW)?;
        match schema {
            None => {
                let node = NodeId::generate();
                write_meta_row(&mut meta, SCHEMA_ROW, &SCHEMA_VERSION.to_be_bytes())?;
                write_meta_row(&mut meta, NODE_ROW, node.as_bytes())?;
                node
            }
            Some(bytes) => {
                check_schema(&bytes)?;
                let bytes = read_meta_row(&meta, NODE_ROW)?.unwrap_or_default();
                NodeId::from_slice(&bytes).ok_or_else(|| Error::corrupt("node id", "it is missing or malformed"))?
            }
        }
    };
    // What a crash left of a snapshot on its way in is of no use: every transfer begins anew.
    transaction.delete_table(SPOOL).map_err(|error| Error::database("discard a spooled snapshot", error))?;
    for table in BYTE_TABLES {
        transaction.open_table(table).map_err(|error| Error::database("prepare the store", error))?;
    }
    transaction.commit().map_err(|error| Error::database("prepare the store", error))?;
    Ok(node)
}

/// Refuses a schema this version does not know. A later version migrates step by step here, in this transaction.
fn check_schema(bytes: &[u8]) -> Result<(), Error> {
    let found =
        bytes.try_into().map(u32::from_be_bytes).map_err(|_| Error::corrupt("schema version", "not 4 bytes"))?;
    match found {
        SCHEMA_VERSION => Ok(()),
        0 => Err(Error::corrupt("schema version", "it is 0")),
        _ => Err(Error::NewerSchema { found, known: SCHEMA_VERSION }),
    }
}

/// Reads one fact about the node from an open table.
pub(crate) fn read_meta_row(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<Vec<u8>>, Error> {
    let row = meta.get(name).map_err(|error| Error::database("read a meta row", error))?;
    Ok(row.map(|value| value.value().to_vec()))
}

/// Writes one fact about the node.
pub(crate) fn write_meta_row(
    meta: &mut Table<'_, &'static str, &'static [u8]>,
    name: &str,
    value: &[u8],
) -> Result<(), Error> {
    meta.insert(name, value).map_err(|error| Error::database("write a meta row", error))?;
    Ok(())
}

/// Reads one fact about the node.
pub(crate) fn read_meta(database: &Database, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let transaction = database.begin_read().map_err(|error| Error::database("read a meta row", error))?;
    let meta = transaction.open_table(META).map_err(|error| Error::database("read a meta row", error))?;
    read_meta_row(&meta, name)
}

/// One of the byte tables as of now, for reading.
pub(crate) fn read_table(
    database: &Database,
    table: ByteTable,
) -> Result<redb::ReadOnlyTable<&'static [u8], &'static [u8]>, Error> {
    let transaction = database.begin_read().map_err(|error| Error::database("begin a read transaction", error))?;
    transaction.open_table(table).map_err(|error| Error::database("open a table", error))
}

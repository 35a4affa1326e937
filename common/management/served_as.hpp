#pragma once
// pgsled.served_as: which database of pgdog.toml the servers of a cluster are (the format and its
// rules: docs/formats/served_as.md). Pure text.

namespace pgsled::management {

// The statements that make the table and its functions; idempotent. For each server database.
const char* served_as_schema();

}  // namespace pgsled::management

#pragma once
// decision_schema: where decisions of commits over several shards are kept, on the shards
// themselves. Formats and rights are in docs/formats/decision.md. Pure.

namespace pgsled::router {

// The statements that make schema pgsled ready for it; idempotent, several routers at once may.
const char* decision_schema();
// One row, one column: t when decision_schema() of this version has been run.
const char* decision_schema_ready();

}  // namespace pgsled::router

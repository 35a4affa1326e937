#pragma once
// The payload of kind `error`: JSON {sqlstate, message, hint, detail}. Pure, any thread.

#include <string>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"
#include "common/bus/envelope.hpp"

namespace pgsled::bus {

std::string error_json(const pg_error&);
// Never fails: what is not such JSON becomes XX000 with a note.
pg_error error_from_json(byte_span);
// What a process answers to a request of a kind that only a newer version knows.
pg_error unknown_kind(kind);

}  // namespace pgsled::bus

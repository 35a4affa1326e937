#pragma once
// SASLprep (RFC 4013) exactly as PostgreSQL and libpq apply it before a password is hashed for
// SCRAM: spaces and invisible characters mapped, normal form KC; what is not UTF-8, is prohibited
// or unassigned, or mixes directions of writing is taken as it is. The tables are libidn's.

#include <string>
#include <string_view>

namespace pgsled::auth {

// May be called from any thread.
std::string saslprep(std::string_view password);

}  // namespace pgsled::auth

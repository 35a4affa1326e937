#pragma once
// What a COPY … FROM STDIN says about its input, as far as finding rows and their keys needs it.
// The server reads the statement itself and refuses what is wrong with it before any data is sent,
// so nothing is checked here that PostgreSQL checks. Pure.

#include <cstdint>
#include <string>
#include <vector>

namespace pgsled::copy {

// Never change or reuse a value.
enum class format : std::uint8_t { text = 1, csv = 2, binary = 3 };

struct options {
  copy::format format = format::text;
  char delimiter = '\t', quote = '"', escape = '"';
  bool header = false;            // a first line that is no row; the servers match it
  bool has_default = false;       // DEFAULT of PostgreSQL 16
  bool all_not_null = false, all_null = false;    // FORCE_NOT_NULL *, FORCE_NULL *
  std::string null_text = "\\N", default_text;
  std::string encoding;           // as written; empty: the client's
  std::vector<std::string> not_null, null;        // columns of FORCE_NOT_NULL, FORCE_NULL
};

}  // namespace pgsled::copy

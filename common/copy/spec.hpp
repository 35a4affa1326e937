#pragma once
// spec: all that splitting the input of one COPY depends on, as the one who runs it says. Travels
// to the replicator (docs/formats/copy.md). Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"
#include "common/copy/characters.hpp"
#include "common/copy/options.hpp"
#include "common/placement/rule.hpp"

namespace pgsled::copy {

struct spec {
  copy::options options;
  std::string table;                  // for errors, as PostgreSQL shows it: without the schema
  std::vector<std::string> columns;   // of each field, in order
  std::uint32_t key = 0;              // index of the key's column in them
  bool everywhere = false;            // each byte goes to all shards: an omnisharded table
  placement::rule rule;
  std::uint32_t limit = 0;            // of the key's column, as in placement::text_rules
  placement::encoding encoding = placement::encoding::converted;
  std::uint32_t server_major = 15;    // version of PostgreSQL: what \. means in CSV
  std::uint32_t shards = 1;
  std::vector<std::uint32_t> bucket_map;       // by hash
  std::vector<placement::mapping> mappings;    // else one: that of the rule
  copy::characters characters = copy::characters::bytes;   // of the input
};

void encode(const spec&, std::string& to);
// Checks every length, ranges of enumerations and shards; rejects trailing bytes.
tl::expected<spec, std::string> decode_spec(byte_span);
// Options alone, as plans carry them.
void encode(const options&, std::string& to);
tl::expected<options, std::string> decode_options(byte_span);

// Encodings by PostgreSQL's own names ("utf-8" is UTF8); empty: not known.
std::string encoding_name(std::string_view as_written);
// Where characters end in an encoding of such a name. `server`: the server's encoding; one of
// SQL_ASCII takes the bytes as they come.
characters characters_of(std::string_view name, std::string_view server);

}  // namespace pgsled::copy

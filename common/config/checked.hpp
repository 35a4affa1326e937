#pragma once
// A file after the check against its declaration: only values of the declared type and range are
// reachable, so that the rest can read them without a thought. Internal to common/config. Pure.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/config/config.hpp"
#include "common/config/schema.hpp"
#include "common/config/toml_tree.hpp"

namespace pgsled::config {

// What was found wrong or without effect, in both files.
class findings {
 public:
  void wrong(const std::string& file, int line, std::string key, std::string text);
  void warn(const std::string& file, int line, std::string key, std::string text);
  void unacted(const std::string& file, int line, const std::string& key);

  static constexpr std::size_t most = 1000;  // of each sort; more help nobody
  struct ignored_key {
    std::string file, key;
    int line = 0, times = 1;
  };
  std::vector<mistake> mistakes, warnings;
  std::vector<ignored_key> ignored;  // each key once, where it was met first
};

// One table. Borrows the node tree and the declaration.
struct entry {
  const section* schema = nullptr;
  int line = 0;
  std::map<std::string_view, const node*> given;  // by declared name, valid values only
  std::vector<entry> nested;

  bool has(std::string_view key) const { return given.count(key) != 0; }
  int line_of(std::string_view key) const;  // of the entry when the key is not given
  // The value given or else the fallback; the optional ones are empty when there is neither.
  bool flag(std::string_view key) const;
  std::string text(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;
  std::int64_t number(std::string_view key) const;  // durations and limits: `never` for no end
  std::optional<bool> maybe_flag(std::string_view key) const;
  std::optional<std::string> maybe_text(std::string_view key) const;
  std::optional<std::int64_t> maybe_number(std::string_view key) const;
  template <class Integer>
  Integer as(std::string_view key) const {
    return static_cast<Integer>(number(key));  // the declared range fits
  }
  template <class Integer>
  std::optional<Integer> maybe(std::string_view key) const {
    const auto value = maybe_number(key);
    return value ? std::optional<Integer>(static_cast<Integer>(*value)) : std::nullopt;
  }
  std::string shown(const setting&) const;  // for SHOW CONFIG

 private:
  const setting& declared(std::string_view key) const;
};

struct checked_file {
  std::string name;
  bool readable = false;  // TOML could be read at all
  node root;
  std::map<std::string_view, std::vector<entry>> sections;

  const entry& only(std::string_view section) const;  // an empty one when it is not given
  const std::vector<entry>& all(std::string_view section) const;
};

// Fills `file.sections` from `file.root`.
void check(checked_file& file, std::span<const section> sections, findings&);

// The lists and ranges of one entry of [[sharded_tables]], from either form; none: by hash.
std::optional<placement::mapping> read_mapping(const checked_file&, const entry& table,
                                               placement::key_type, findings&);
void check_older_mappings(const checked_file&, findings&);   // those that are for no table

configuration assemble(const checked_file& pgdog, const checked_file& users, findings&);
void cross_check(const checked_file& pgdog, const checked_file& users, const configuration&,
                 findings&);
void check_tls_files(const checked_file& pgdog, findings&);  // opens them

}  // namespace pgsled::config

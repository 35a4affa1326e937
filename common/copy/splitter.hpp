#pragma once
// splitter: the bytes of a COPY FROM STDIN, in pieces cut anywhere, become cuts that say which
// shard gets which bytes. Rows and fields are found as PostgreSQL 15 to 18 find them
// (copyfromparse.c), the key's value is read as it would be stored. No row is kept: only where it
// began, its lines, and the bytes of its key. As soon as the key is known the rest of a row is cut
// as it comes. Pure; allocates nothing per row. Thread rule: one owner.
//
// The first error ends it: rows before it have been cut, nothing behind it is. Bounds: a key of
// max_key bytes; cuts cover all bytes fed but those of the row whose key has not come yet.

#include <memory>

#include "common/copy/cut.hpp"
#include "common/copy/spec.hpp"

namespace pgsled::copy {

struct split_error {
  pg_error error;
  std::string context;    // as PostgreSQL says it: COPY t, line 3, column id: "x"
  std::uint64_t line = 0; // of the client's input
};

// Layout: five texts (sqlstate, message, hint, detail, context) with a 32-bit count before each,
// then the line, all little-endian.
void encode(const split_error&, std::string& to);
std::optional<split_error> decode_split_error(byte_span);

class splitter {
 public:
  static constexpr std::size_t max_key = 1u << 20;

  virtual ~splitter() = default;
  splitter(const splitter&) = delete;
  splitter& operator=(const splitter&) = delete;

  // False: failed. The cuts appended before that are good.
  virtual bool feed(byte_span bytes, cut_list& to) = 0;
  // The client has sent CopyDone. Afterwards every byte has been cut.
  virtual bool finish(cut_list& to) = 0;
  const std::optional<split_error>& failed() const { return failed_; }

 protected:
  explicit splitter(spec);

  // Where the rows go, by the bytes of the key's field with escapes undone.
  std::optional<std::uint32_t> place(placement::form, std::string_view value);
  void fail(pg_error why, const std::string* column = nullptr, const std::string* value = nullptr);
  void fail(std::string sqlstate, std::string message, std::string hint = {});
  // All bytes up to `end` that have not been cut yet.
  void cut_to(std::uint64_t end, std::uint32_t to, cut_list& list);
  std::uint32_t any_shard() const;   // one that has rows of the table
  const std::string& key_column() const { return spec_.columns[spec_.key]; }

  const spec spec_;
  std::optional<split_error> failed_;
  // Why the row's key places it nowhere; said when the row is known to be whole.
  std::optional<pg_error> unplaced_;
  std::uint64_t offset_ = 0;      // of the next byte to be fed
  std::uint64_t cut_ = 0;         // bytes cut so far
  std::uint64_t line_ = 0;        // of the client's input, as PostgreSQL counts it
  std::uint64_t row_lines_ = 0, row_shard_lines_ = 0;   // of the row in hand, not yet said in a cut

 private:
  std::optional<placement::mapping_index> mapping_;
};

std::unique_ptr<splitter> make_splitter(spec);

}  // namespace pgsled::copy

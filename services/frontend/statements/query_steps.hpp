#pragma once
// query_steps: the statements of one Query that do not go to one place together, taken one after
// the other as Querys of their own in one transaction, and what the client sees of it: the answers
// as of one Query. Pure; no socket. Bounds: those of the Query that it was; one ErrorResponse or
// NoticeResponse of the server at a time.

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/bytes.hpp"

namespace pgsled::frontend {

class query_steps {
 public:
  // How positions in errors, which count characters, are told of the whole text.
  enum class counted { bytes, utf8, unknown };
  // `parts`: offset and length of each statement in `sql`, in order.
  query_steps(std::string sql, std::vector<std::pair<std::size_t, std::size_t>> parts, counted);

  bool more() const { return at_ < parts_.size() && !failed_; }
  bool last() const { return at_ + 1 == parts_.size(); }   // the next one
  std::string_view next_text() const;
  // Appends the next statement as a Query message. `implicit`: in a block that ends with the last
  // of them, whose CommandComplete is then told only when the block has ended well.
  void take(std::string& to, bool implicit);
  // What comes now is the end of it all, with its one ReadyForQuery.
  void end() { ending_ = true; }
  bool ending() const { return ending_; }
  bool over() const { return over_; }
  bool failed() const { return failed_; }

  // Messages for the client, cut anywhere: without ReadyForQuery, positions corrected. Notes
  // whether there is an error among them.
  void pass(std::string_view bytes, std::string& to);

 private:
  void whole(std::string& to);

  const std::string sql_;
  const std::vector<std::pair<std::size_t, std::size_t>> parts_;
  const counted counted_;
  std::size_t at_ = 0;
  std::size_t counted_to_ = 0, shift_ = 0;   // of sql_; characters before the step in hand
  std::string kept_;          // a header that is not whole, or a message that is looked at
  std::size_t passing_ = 0;   // bytes of a message that passes
  std::string held_;          // the last CommandComplete
  bool failed_ = false, holds_ = false, ending_ = false, over_ = false;
};

}  // namespace pgsled::frontend

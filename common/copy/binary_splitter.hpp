#pragma once
// binary_splitter: COPY's binary format. Internal to common/copy; see splitter.hpp.

#include <array>

#include "common/copy/splitter.hpp"

namespace pgsled::copy {

class binary_splitter final : public splitter {
 public:
  explicit binary_splitter(spec s) : splitter(std::move(s)) {}
  bool feed(byte_span bytes, cut_list& to) override;
  bool finish(cut_list& to) override;

 private:
  enum class state : std::uint8_t {
    signature,   // 11 bytes
    flags,       // 4
    extension,   // its length, 4
    skipping,    // the extension
    count,       // of fields of the next row, 2
    length,      // of the next field, 4
    field,       // its bytes
    ended,       // behind the trailer nothing may come
  };
  // Collects `wanted` bytes in small_; true when they are there.
  bool collect(std::size_t wanted, byte_span& from);
  void take(byte_span& from, cut_list& to);
  void begin_row(std::int16_t fields, cut_list& to);
  void begin_field(std::int32_t length, cut_list& to);
  void end_field(cut_list& to);
  void let_it_say(std::uint64_t end, cut_list& to);
  std::uint64_t at(byte_span rest) const { return offset_ + chunk_.size() - rest.size(); }

  byte_span chunk_;
  state state_ = state::signature;
  std::array<std::uint8_t, 11> small_{};
  std::size_t have_ = 0;
  std::uint64_t left_ = 0;              // of what is skipped, or of the field
  std::uint64_t row_end_ = 0;           // where the piece just read ends
  std::size_t field_ = 0;
  std::optional<std::uint32_t> shard_;
  bool line_said_ = false;              // a part of the row has been cut
  std::string key_;
};

}  // namespace pgsled::copy

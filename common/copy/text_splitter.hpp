#pragma once
// text_splitter: COPY's text and CSV formats. Internal to common/copy; see splitter.hpp.
//
// PostgreSQL reads a line, then takes it apart; here both happen in one pass, which gives the same
// because in both formats a byte that hides a line's end from the first step hides a delimiter
// from the second one, too.

#include <array>

#include "common/copy/splitter.hpp"

namespace pgsled::copy {

class text_splitter final : public splitter {
 public:
  explicit text_splitter(spec);
  bool feed(byte_span bytes, cut_list& to) override;
  bool finish(cut_list& to) override;

 private:
  enum class state : std::uint8_t {
    plain,         // in a field; text: nothing special before; CSV: not in quotes
    escaped,       // text: behind a backslash
    quoted,        // CSV: in quotes
    quote_escape,  // CSV: behind an escape character in quotes that is not the quote
    quote_quote,   // CSV: behind a quote in quotes that is the escape, too
    carriage,      // behind a \r that ends the line, unless what follows says otherwise
    backslash,     // CSV: behind a backslash that begins the line
    marker,        // behind \.
    marker_carriage,  // behind \. and \r, where lines end with \r\n
    ended,         // what follows is nobody's
  };
  enum class line_end : std::uint8_t { unknown, newline, carriage, both };

  void step(char c, std::uint64_t at, cut_list& to);
  void plain(char c, std::uint64_t at, cut_list& to);
  void quoted(char c);
  void marker(char c, std::uint64_t at, cut_list& to);
  void no_marker(char c, std::uint64_t at, cut_list& to);
  void end_marker(std::uint64_t at, cut_list& to);
  void end_field(std::uint64_t at);
  void end_line(std::uint64_t from, std::uint64_t behind, cut_list& to);
  void begin_line(std::uint64_t at);
  void read_key(std::string_view raw);
  std::size_t take_character(std::string_view raw, std::size_t at);
  std::string_view undo_text(std::string_view raw);
  std::string_view undo_csv(std::string_view raw);
  void literal_end(const char* what);
  bool csv() const { return spec_.options.format == format::csv; }

  std::size_t skip_character(byte_span bytes, std::size_t from);

  std::array<bool, 256> special_{}, special_quoted_{};
  std::size_t character_left_ = 0;  // bytes of a character that has begun
  bool second_tells_ = false;       // how many they are
  byte_span chunk_;                 // being fed
  std::uint64_t chunk_at_ = 0;      // its offset
  state state_ = state::plain;
  state before_marker_ = state::plain;
  line_end end_ = line_end::unknown;
  bool header_ = false;             // the line in hand is the header
  bool key_unquoted_ = true;
  bool force_not_null_ = false, force_null_ = false;
  std::uint64_t line_begin_ = 0, field_begin_ = 0;
  std::uint64_t doubt_ = 0;         // where a marker or a line's end may begin
  std::size_t field_ = 0;
  std::optional<std::uint32_t> shard_;      // of the row in hand
  std::vector<bool> seen_;          // shards that have had a line
  std::uint64_t carriages_ = 0, line_ends_ = 0;  // in quotes, of the row in hand
  std::string raw_, value_;         // of the key's field: from earlier chunks; escapes undone
};

}  // namespace pgsled::copy

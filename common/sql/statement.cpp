#include "common/sql/statement.hpp"

#include <algorithm>
#include <array>

#include "common/sql/lexer.hpp"
#include "common/sql/setting_calls.hpp"

namespace pgsled::sql {
namespace {

using namespace literals;

// What is remembered of one statement while its tokens go by.
struct facts {
  static constexpr std::size_t head_size = 16;
  std::array<token, head_size> head;   // the first tokens
  std::size_t count = 0;               // of all tokens
  std::uint32_t end = 0;               // of the last one
  unsigned set_configs = 0;
  bool leaves_state = false;           // calls or creates something that stays on the connection
  bool copy_in = false;                // FROM STDIN outside parentheses
  bool with_hold = false;

  const token& at(std::size_t i) const {
    static constexpr token none;
    return i < std::min(count, head_size) ? head[i] : none;
  }
};

// Functions whose effect outlives the transaction. Their names are longer than a word code.
bool is_sticky_function(std::string_view name) {
  if (name.starts_with("pg_try_")) name.remove_prefix(7);
  else if (name.starts_with("pg_")) name.remove_prefix(3);
  else return name == "dblink_connect" || name == "dblink_connect_u" || name == "set_limit";
  return name == "advisory_lock" || name == "advisory_lock_shared" ||
         name == "replication_origin_session_setup";
}

class finder {
 public:
  finder(std::string_view sql, bool standard_strings, std::vector<statement>& into)
      : sql_(sql), standard_(standard_strings), lexer_(sql, standard_strings), into_(into) {}

  void run() {
    into_.clear();
    while (one_statement()) {
    }
  }

 private:
  bool one_statement();
  void look_at(const token& t);
  void call(const token& name);
  bool opens_body(const token& t) const;

  void classify();
  void classify_transaction_word(std::uint64_t word);
  void classify_set();
  void classify_set_value(std::size_t at, std::string name, bool local);
  void classify_reset();
  void classify_savepoint(effect kind, std::size_t at);
  void classify_calls();
  bool whole_set_configs();
  bool creates_temporary() const;
  bool do_block_is_harmless() const;
  std::size_t explained() const;

  std::string name_at(std::size_t i) const { return identifier(sql_, facts_.at(i)); }
  std::string rest_from(const token& t) const {
    return std::string{sql_.substr(t.begin, facts_.end - t.begin)};
  }
  void found(effect kind, std::string name = {}, std::string value = {}) {
    statement& s = into_.back();
    s.effect = kind;
    s.name = std::move(name);
    s.value = std::move(value);
    const bool unread = s.name.empty() && facts_.set_configs > 0;
    s.unknown_path = unread && (kind == effect::pin || kind == effect::set_local);
  }

  std::string_view sql_;
  bool standard_;
  lexer lexer_;
  std::vector<statement>& into_;
  facts facts_;
  token last_, before_, third_;  // the tokens before the one looked at
  int depth_ = 0;
};

// BEGIN ATOMIC of an SQL-standard function body.
bool finder::opens_body(const token& t) const {
  return t.is("atomic"_w) && last_.is("begin"_w) && facts_.at(0).is("create"_w);
}

bool finder::one_statement() {
  facts_.count = 0;
  facts_.end = 0;
  facts_.set_configs = 0;
  facts_.leaves_state = facts_.copy_in = facts_.with_hold = false;
  depth_ = 0;
  last_ = before_ = third_ = token{};
  bool in_body = false, more = false;
  while (true) {
    const token t = lexer_.next();
    if (t.kind == token_kind::end) break;
    if (t.is_symbol(';') && depth_ <= 0 && !in_body) {
      if (facts_.count == 0) continue;
      more = true;
      break;
    }
    if (!in_body) {
      in_body = opens_body(t);
      look_at(t);
    } else if (t.is("end"_w) && (last_.is_symbol(';') || last_.is("atomic"_w))) {
      in_body = false;  // no statement of a body begins with END
    }
    if (facts_.count < facts::head_size) facts_.head[facts_.count] = t;
    ++facts_.count;
    facts_.end = t.end;
    third_ = before_;
    before_ = last_;
    last_ = t;
  }
  if (facts_.count == 0) return false;
  statement& s = into_.emplace_back();
  s.offset = facts_.at(0).begin;
  s.length = facts_.end - s.offset;
  classify();
  return more;
}

void finder::look_at(const token& t) {
  if (t.kind == token_kind::symbol) {
    if (t.is_symbol('(')) {
      if (last_.kind == token_kind::word || last_.kind == token_kind::quoted) call(last_);
      ++depth_;
    } else if (t.is_symbol(')')) {
      --depth_;
    }
    return;
  }
  if (t.kind == token_kind::word) {
    switch (t.code) {
      case "stdin"_w: case "stdout"_w:  // COPY t FROM STDOUT is grammar, too
        if (depth_ == 0 && last_.is("from"_w)) facts_.copy_in = true;
        break;
      case "hold"_w:
        if (last_.is("with"_w)) facts_.with_hold = true;
        break;
      case "temp"_w: case 0: {  // temporary has no code
        if (t.code == 0 && t.size() != 9) break;
        std::array<char, 64> buffer;
        if (t.code == 0 && folded(sql_, t, buffer) != "temporary") break;
        // SELECT … INTO [LOCAL] TEMP x; but INSERT INTO temp names a table.
        const bool scoped = last_.is("local"_w) || last_.is("global"_w);
        const token& into = scoped ? before_ : last_;
        const token& verb = scoped ? third_ : before_;
        if (into.is("into"_w) && !verb.is("insert"_w) && !verb.is("merge"_w)) {
          facts_.leaves_state = true;
        }
        break;
      }
      default:
        break;
    }
    if (t.size() < 7 || fold(sql_[t.begin]) != 'p') return;
  } else if (t.kind == token_kind::unicode_id) {
    facts_.leaves_state = true;  // may spell any name
    return;
  } else if (t.kind != token_kind::quoted) {
    return;
  }
  std::array<char, 64> buffer;
  if (folded(sql_, t, buffer).starts_with("pg_temp")) facts_.leaves_state = true;
}

void finder::call(const token& name) {
  if (name.size() < 7) return;
  std::array<char, 64> buffer;
  const std::string_view function = folded(sql_, name, buffer);
  if (function == "set_config") {
    ++facts_.set_configs;
  } else if (function == "setseed" || is_sticky_function(function)) {
    facts_.leaves_state = true;
  }
}

void finder::classify() {
  const token& first = facts_.at(0);
  if (first.kind != token_kind::word) return classify_calls();
  switch (first.code) {
    case "select"_w: case "insert"_w: case "update"_w: case "delete"_w: case "with"_w:
      return classify_calls();
    case "begin"_w: case "start"_w: case "commit"_w: case "end"_w: case "rollback"_w:
    case "abort"_w: case "prepare"_w:
      return classify_transaction_word(first.code);
    case "set"_w: return classify_set();
    case "reset"_w: return classify_reset();
    case "release"_w: {
      const bool word =
          facts_.at(1).kind == token_kind::word && facts_.at(2).kind != token_kind::end;
      return classify_savepoint(effect::release, word ? 2 : 1);
    }
    case "discard"_w:
      if (facts_.at(1).is("all"_w)) found(effect::discard_all);
      return;
    case "listen"_w: case "load"_w: return found(effect::pin);
    case "copy"_w:
      if (facts_.copy_in) return found(effect::copy_from_stdin);
      return classify_calls();
    case "declare"_w:
      if (facts_.with_hold) return found(effect::pin);
      return classify_calls();
    case "create"_w:
      if (creates_temporary()) return found(effect::pin);
      return classify_calls();
    case "do"_w:
      if (!do_block_is_harmless()) {
        found(effect::pin);
        into_.back().unknown_path = true;
      }
      return;
    case "explain"_w: {
      // What is explained may be run, and then leaves what it would leave without EXPLAIN.
      const std::size_t inner = explained();
      const token& word = facts_.at(inner);
      const bool temporary = word.is("create"_w) && creates_temporary();
      if (temporary || facts_.set_configs > 0) return found(effect::pin);
      return classify_calls();
    }
    default: break;
  }
  std::array<char, 64> buffer;
  const std::string_view word = folded(sql_, first, buffer);
  if (word == "savepoint") return classify_savepoint(effect::savepoint, 1);
  if (word == "deallocate") {
    const bool skip = facts_.at(1).is("prepare"_w) && facts_.at(2).kind != token_kind::end;
    const std::size_t at = skip ? 2 : 1;
    const bool well_formed = facts_.at(at).kind != token_kind::end &&
                             facts_.at(at + 1).kind == token_kind::end;
    if (!well_formed) return;
    return found(effect::deallocate, facts_.at(at).is("all"_w) ? std::string{} : name_at(at));
  }
  classify_calls();
}

void finder::classify_transaction_word(std::uint64_t word) {
  const token& second = facts_.at(1);
  std::array<char, 64> buffer;
  const std::string_view second_word =
      second.kind == token_kind::word ? folded(sql_, second, buffer) : std::string_view{};
  switch (word) {
    case "begin"_w:
      return found(effect::begin, {}, rest_from(facts_.at(0)));
    case "start"_w:
      if (second_word == "transaction") found(effect::begin, {}, rest_from(facts_.at(0)));
      return;
    case "prepare"_w:
      return found(second_word == "transaction" && facts_.at(2).kind != token_kind::symbol &&
                           !facts_.at(2).is("as"_w)
                       ? effect::commit
                       : effect::pin);
    case "commit"_w: case "end"_w:
      if (second_word != "prepared") found(effect::commit);
      return;
    default: break;
  }
  if (second_word == "prepared") return;
  std::size_t at = second_word == "work" || second_word == "transaction" ? 2 : 1;
  if (word == "abort"_w || !facts_.at(at).is("to"_w)) return found(effect::rollback);
  ++at;
  if (facts_.at(at + 1).kind != token_kind::end) ++at;  // the word SAVEPOINT
  classify_savepoint(effect::rollback_to, at);
}

void finder::classify_savepoint(effect kind, std::size_t at) { found(kind, name_at(at)); }

// "SET [SESSION|LOCAL] …", every spelling of it.
void finder::classify_set() {
  std::size_t at = 1;
  bool local = false;
  if (facts_.at(1).is("local"_w) && !facts_.at(2).is_symbol('=') && !facts_.at(2).is("to"_w)) {
    local = true;
    at = 2;
  } else if (facts_.at(1).is("session"_w)) {
    std::array<char, 64> buffer;
    const std::string_view next = folded(sql_, facts_.at(2), buffer);
    if (next == "characteristics") return found(effect::pin, "characteristics");
    if (next != "authorization") at = 2;
  }
  std::array<char, 64> buffer;
  const token& word = facts_.at(at);
  const std::string_view text = folded(sql_, word, buffer);
  const bool plain = word.kind == token_kind::word;
  const token& next = facts_.at(at + 1);
  if (plain && (text == "transaction" || text == "constraints")) {
    return found(effect::set_local, std::string{text}, rest_from(facts_.at(0)));
  }
  const bool assigned = next.is_symbol('=') || next.is("to"_w) || next.is_symbol('.');
  if (plain && !assigned) {
    if (text == "time" && next.is("zone"_w)) return classify_set_value(at + 2, "timezone", local);
    if (text == "names") return classify_set_value(at + 1, "client_encoding", local);
    if (text == "schema") return classify_set_value(at + 1, "search_path", local);
    if (text == "role") return classify_set_value(at + 1, "role", local);
    if (text == "xml" && next.is("option"_w)) return classify_set_value(at + 2, "xmloption", local);
    if (text == "session" && next.kind == token_kind::word) {
      return classify_set_value(at + 2, "session_authorization", local);
    }
  }
  std::string name = name_at(at++);
  while (facts_.at(at).is_symbol('.')) {
    name += '.' + name_at(at + 1);
    at += 2;
  }
  std::transform(name.begin(), name.end(), name.begin(), fold);
  if (!facts_.at(at).is_symbol('=') && !facts_.at(at).is("to"_w)) return found(effect::pin);
  classify_set_value(at + 1, std::move(name), local);
}

void finder::classify_set_value(std::size_t at, std::string name, bool local) {
  const token& value = facts_.at(at);
  const bool alone = facts_.count == at + 1;
  const bool none = facts_.count == at && name == "client_encoding";  // SET NAMES
  const bool is_default = none || (alone && value.is("default"_w)) ||
                          (name == "timezone" && alone && value.is("local"_w));
  if (!none && value.kind == token_kind::end) return found(effect::pin);
  // A path is a string as well as names.
  const bool leaves_state = facts_.leaves_state ||
                            (name == "search_path" && !none && says_pg_temp(rest_from(value)));
  if (local && !leaves_state && value.is("interval"_w)) return found(effect::set_local);
  // Whatever the statement says these are gone with the transaction.
  if ((local || is_transaction_mode(name)) && !leaves_state) {
    return found(effect::set_local, std::move(name),
                 is_default ? std::string{"DEFAULT"} : rest_from(value));
  }
  if (is_default && !local) return found(effect::reset, std::move(name));
  // What cannot be said again as SET name TO value: INTERVAL '…' HOUR TO MINUTE; strings that mean
  // something else when standard_conforming_strings differs; the temporary schema in a path.
  if (value.is("interval"_w) || leaves_state || lexer_.escaping_backslash()) {
    found(effect::pin);
    into_.back().unknown_path = name == "search_path";
    return;
  }
  found(effect::set, std::move(name), rest_from(value));
}

void finder::classify_reset() {
  std::array<char, 64> buffer;
  const token& word = facts_.at(1);
  const std::string_view text =
      word.kind == token_kind::word ? folded(sql_, word, buffer) : std::string_view{};
  const bool alone = facts_.count == 2;
  if (text == "all" && alone) return found(effect::reset_all);
  if (!alone && text == "time") return found(effect::reset, "timezone");
  if (!alone && text == "session") return found(effect::reset, "session_authorization");
  if (!alone && text == "transaction") return found(effect::reset, "transaction_isolation");
  std::string name = name_at(1);
  for (std::size_t at = 2; facts_.at(at).is_symbol('.'); at += 2) name += '.' + name_at(at + 1);
  std::transform(name.begin(), name.end(), name.begin(), fold);
  found(effect::reset, std::move(name));
}

void finder::classify_calls() {
  if (facts_.leaves_state) return found(effect::pin);
  if (facts_.set_configs == 0) return;
  if (whole_set_configs()) return;
  const auto local = count_local_calls(sql_, standard_, into_.back().offset, facts_.end);
  found(local == facts_.set_configs ? effect::set_local : effect::pin);
}

// A statement that is nothing else: as good as SET where its arguments are literals.
bool finder::whole_set_configs() {
  auto calls = read_setting_calls(sql_, standard_, into_.back().offset, facts_.end);
  if (calls.empty() || calls.size() != facts_.set_configs) return false;
  const auto any = [&](auto is_so) { return std::any_of(calls.begin(), calls.end(), is_so); };
  if (!any([](const setting_call& one) { return one.has_parameters(); })) {
    std::vector<known_setting> known;
    for (auto& one : calls) {
      auto quoted = '\'' + one.value.text + '\'';
      known.push_back({std::move(one.name.text), std::move(one.value.text), std::move(quoted),
                       one.is_local.text == "true"});
    }
    return sets(known, into_.back());
  }
  const bool stays = any([](const setting_call& one) { return one.is_local.text != "true"; });
  found(stays ? effect::pin : effect::set_local);
  into_.back().unknown_path = any([](const setting_call& one) {
    return one.name.parameter > 0 || decides_names(one.name.text);
  });
  into_.back().calls = std::make_shared<const std::vector<setting_call>>(std::move(calls));
  return true;
}

// CREATE [OR REPLACE] [LOCAL|GLOBAL] TEMP|TEMPORARY …
bool finder::creates_temporary() const {
  std::array<char, 64> buffer;
  std::size_t at = 0;
  while (at < facts::head_size && !facts_.at(at).is("create"_w)) ++at;
  ++at;
  if (facts_.at(at).is("or"_w)) at += 2;
  if (facts_.at(at).is("local"_w) || facts_.at(at).is("global"_w)) ++at;
  if (facts_.at(at).kind != token_kind::word) return false;
  return facts_.at(at).is("temp"_w) || folded(sql_, facts_.at(at), buffer) == "temporary";
}

// The body of a DO block is a string to us: any word in it that could leave something counts.
bool finder::do_block_is_harmless() const {
  std::array<char, 64> buffer;
  const std::string_view text{sql_.data() + into_.back().offset, into_.back().length};
  for (std::size_t i = 0; i < text.size();) {
    if (!(detail::class_of(text[i]) & detail::id_start)) {
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && detail::class_of(text[end]) & detail::id_more && text[end] != '$') {
      ++end;
    }
    const token t{token_kind::word, static_cast<std::uint32_t>(i),
                  static_cast<std::uint32_t>(end), 0};
    const std::string_view word = folded(text, t, buffer);
    if (word.starts_with("temp") || word.starts_with("pg_temp") || word == "set" ||
        word == "set_config" || word == "setseed" || word == "listen" || word == "load" ||
        word == "execute" || word == "reset" || word == "discard" || word == "prepare" ||
        word == "call" || word == "deallocate" || word == "hold" || is_sticky_function(word)) {
      return false;
    }
    i = end;
  }
  return true;
}

// The index of the first token of the statement behind EXPLAIN and its options.
std::size_t finder::explained() const {
  std::size_t at = 1;
  if (facts_.at(at).is_symbol('(')) {
    int depth = 0;
    for (; at < facts::head_size; ++at) {
      if (facts_.at(at).is_symbol('(')) ++depth;
      if (facts_.at(at).is_symbol(')') && --depth == 0) return at + 1;
    }
    return at;
  }
  while (facts_.at(at).is("analyze"_w) || facts_.at(at).is("analyse"_w) ||
         facts_.at(at).is("verbose"_w)) {
    ++at;
  }
  return at;
}

}  // namespace

void find_statements(std::string_view sql, bool standard_strings, std::vector<statement>& into) {
  finder{sql, standard_strings, into}.run();
}

}  // namespace pgsled::sql

// COPY FROM STDIN: from the client's CopyData messages by way of the replicator's cuts to the
// shards.

#include <algorithm>

#include "services/frontend/client/client.hpp"
#include "services/frontend/copy/shard_copy_leg.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;

namespace {

constexpr auto look_again = std::chrono::milliseconds(20);
constexpr std::size_t small_batch = 32 * 1024;   // waits for more while others are under way
constexpr std::size_t max_reason = 64 * 1024;

// Does the column hold what the rule is about?
bool fits(placement::key_type type, const std::string& name) {
  switch (type) {
    case placement::key_type::bigint: return name == "int8" || name == "int4" || name == "int2";
    case placement::key_type::uuid: return name == "uuid";
    case placement::key_type::varchar: return name == "varchar" || name == "text";
  }
  return false;
}

std::string value_of(const session::pair_set_ref& parameters, std::string_view name) {
  const auto* found = parameters->find(name);
  return found != nullptr ? *found : std::string{};
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

// From what the first shard has said of the table's columns; the others said the same.
bool shard_copy::make_spec(pg_error& why) {
  auto& first = *legs_.begin()->second;
  const auto& endpoint = *client_.endpoint_;
  spec_.options = job().options;
  spec_.table = job().name;
  spec_.shards = static_cast<std::uint32_t>(endpoint.pools.size());
  spec_.everywhere = job().key.empty();
  spec_.columns = job().columns;
  held_ = std::make_unique<copy::scatter>(spec_.shards);
  out_.resize(spec_.shards);
  if (spec_.everywhere) return defaults_are_the_same(why);
  if (spec_.columns.empty()) {
    for (const auto& row : first.rows) spec_.columns.push_back(row[0]);
  }
  const auto named = [&](const auto& row) { return row[0] == job().key; };
  const auto key = std::find_if(first.rows.begin(), first.rows.end(), named);
  const auto field = std::find(spec_.columns.begin(), spec_.columns.end(), job().key);
  if (key == first.rows.end() || field == spec_.columns.end()) {
    why = {"0A000", "table \"" + job().name + "\" has no column \"" + job().key +
                        "\" that COPY could fill, and that is its sharding key",
           "See its [[sharded_tables]] in pgdog.toml.", {}};
    return false;
  }
  spec_.key = static_cast<std::uint32_t>(field - spec_.columns.begin());
  spec_.rule = plan_->plan.rule;
  if (!fits(spec_.rule.type, (*key)[1]) || (*key)[3] != "t") {
    why = {"0A000", "the sharding key of table \"" + job().name + "\", column \"" + job().key +
                        "\", is of type " + (*key)[1] + " and cannot be placed as " +
                        std::string(placement::name_of(spec_.rule.type)),
           "Its type has to be the data_type of the table in pgdog.toml, its collation "
           "deterministic.", {}};
    return false;
  }
  spec_.limit = static_cast<std::uint32_t>(std::strtoul((*key)[2].c_str(), nullptr, 10));
  if (!read_encodings(first.lease->parameters, why)) return false;
  spec_.server_major = static_cast<std::uint32_t>(
      std::strtoul(value_of(first.lease->parameters, "server_version").c_str(), nullptr, 10));
  if (spec_.rule.mapping == 0) {
    spec_.bucket_map = endpoint.owners->bucket_map;
  } else {
    for (const auto& mapping : endpoint.database.mappings) {
      if (mapping.id == spec_.rule.mapping) spec_.mappings.push_back(mapping);
    }
  }
  return true;
}

// Of a table that is on every shard: what the input does not give must not be computed by each.
bool shard_copy::defaults_are_the_same(pg_error& why) const {
  const auto& listed = spec_.columns;
  for (const auto& [shard, one] : legs_) {
    for (const auto& row : one->rows) {
      if (row[5] == "t") {
        why = {"0A000",
               "table \"" + spec_.table + "\", which is on every shard, has triggers BEFORE "
               "INSERT, which may make another row on each",
               "Use INSERT, which compares them.", {}};
        return false;
      }
      const bool given = listed.empty() ||
                         std::find(listed.begin(), listed.end(), row[0]) != listed.end();
      if (row[4] != "t" || (given && !spec_.options.has_default)) continue;
      why = {"0A000",
             "COPY into table \"" + spec_.table + "\", which is on every shard, leaves column \"" +
                 row[0] + "\" to its default, which each shard would compute by itself",
             "Give the column in the input, or use INSERT.", {}};
      return false;
    }
  }
  return true;
}

// What the input's bytes mean, and whether those of the statement mean the same.
bool shard_copy::read_encodings(const session::pair_set_ref& parameters, pg_error& why) {
  const auto& o = spec_.options;
  const auto client = value_of(parameters, "client_encoding");
  const auto server = value_of(parameters, "server_encoding");
  // In binary format PostgreSQL takes texts as the client's, whatever the option says.
  const bool told = !o.encoding.empty() && o.format != copy::format::binary;
  const auto input = told ? copy::encoding_name(o.encoding) : client;
  if (input.empty()) {
    why = {"22023", "argument to option \"encoding\" must be a valid encoding name", {}, {}};
    return false;
  }
  spec_.characters = copy::characters_of(input, server);
  spec_.encoding = placement::encoding_between(input, server);
  const bool marks = is_ascii({&o.delimiter, 1}) && is_ascii({&o.quote, 1}) &&
                     is_ascii({&o.escape, 1});
  const auto as_is = [](placement::encoding how) { return how != placement::encoding::converted; };
  const bool unconverted = as_is(spec_.encoding) &&
                           as_is(placement::encoding_between(client, server));
  const bool texts = is_ascii(o.null_text) && is_ascii(o.default_text);
  if (unconverted || (marks && (texts || input == client))) return true;
  why = {"0A000",
         "options of the COPY have characters beyond ASCII, and its input is in another encoding "
         "(" + input + ") than " +
             (marks ? "the statement (" + client : "the server (" + server) + ")",
         "Use a delimiter, quote and NULL of ASCII, or leave ENCODING out.", {}};
  return false;
}

void shard_copy::find_splitter() {
  if (phase_ != phase::waiting) return;
  if (auto* line = worker_.splitter()) {
    if (const auto number = line->open(spec_, *this)) {
      line_ = line;
      number_ = *number;
      return start();
    }
  }
  if (worker_.loop().now() >= patience_) {
    return fail({"57P03",
                 "no replicator is there to split the input of COPY; waited " +
                     std::to_string(worker_.settings().checkout_timeout) +
                     " ms (checkout_timeout)",
                 "Start pgsled-replicator.",
                 {}});
  }
  timer_ = worker_.loop().after(look_again, [this] {
    timer_ = 0;
    auto& owner = worker_;
    find_splitter();
    owner.run_scheduled();
  });
}

// All shards wait for data.
void shard_copy::begin_input() {
  phase_ = phase::streaming;
  answer_beginning();
  client_.write(legs_.begin()->second->response);
  client_.resume();
  client_.watch();
}

bool shard_copy::room() const {
  if (under_way_ >= window || (held_ && held_->unsent().size() >= max_batch)) return false;
  return std::none_of(legs_.begin(), legs_.end(),
                      [](const auto& one) { return one.second->lease->blocked(); });
}

std::size_t shard_copy::input(byte_span bytes) {
  client_.last_request_ = worker_.loop().now();
  std::size_t at = 0;
  while (phase_ == phase::streaming && incoming() && !input_over_ && at < bytes.size()) {
    const auto rest = bytes.subspan(at);
    if (message_left_ > 0) {
      if (!room()) break;
      const auto count = std::min<std::uint64_t>(message_left_, rest.size());
      message_left_ -= count;
      at += count;
      take(rest.first(count));
      continue;
    }
    wire::frame frame;
    const auto shape = wire::peek(rest, frame);
    if (shape == wire::frame_state::partial_header) break;
    if (shape == wire::frame_state::bad_length) {
      client_.violate("invalid message length");
      return bytes.size();
    }
    if (frame.type == fe::terminate) {
      client_.close("client ended the session");
      return bytes.size();
    }
    if (done_seen_) {
      // Extended: a COPY is committed by the Sync behind it. What else there is belongs to its
      // transaction.
      if (frame.type != fe::sync) {
        const auto* isolation = client_.shadow_->current()->find("default_transaction_isolation");
        if (isolation != nullptr && isolation->find("read committed") == isolation->npos) {
          fail({"0A000",
                "statements behind COPY into several shards, in one batch without BEGIN, need "
                "isolation level READ COMMITTED",
                "Send Sync behind CopyDone.", {}});
          break;
        }
        alone_ = false;
        client_.begin_batch();
      }
      input_over_ = true;
      input_ends();
      break;
    }
    switch (frame.type) {
      case fe::copy_data:
        message_left_ = frame.length;
        at += wire::header_size;
        continue;
      case fe::sync:
      case fe::flush:   // PostgreSQL ignores them here
        if (rest.size() < frame.total()) return at;
        at += frame.total();
        continue;
      case fe::copy_done:
        if (rest.size() < frame.total()) return at;
        at += frame.total();
        done_seen_ = true;
        if (!simple_ && alone_) continue;
        input_over_ = true;
        input_ends();
        break;
      case fe::copy_fail: {
        if (frame.total() > max_reason) {
          client_.violate("CopyFail is too long");
          return bytes.size();
        }
        if (rest.size() < frame.total()) return at;
        at += frame.total();
        auto reason = as_text(rest.subspan(wire::header_size, frame.length));
        reason = reason.substr(0, reason.find('\0'));
        fail({"57014", "COPY from stdin failed: " + std::string(reason), {}, {}});
        break;
      }
      default:
        client_.violate("unexpected message type " +
                        std::to_string(static_cast<int>(frame.type)) + " during COPY from stdin");
        return bytes.size();
    }
  }
  if (phase_ == phase::streaming && incoming()) send_batches();
  return at;
}

void shard_copy::take(byte_span payload) {
  if (payload.empty()) return;
  if (!spec_.everywhere) {
    held_->hold(payload);
    if (held_->unsent().size() >= max_batch) send_batches();
    return;
  }
  std::string message;
  copy::begin_copy_data(message, payload.size());
  message.append(as_text(payload));
  for (auto& [shard, one] : legs_) one->lease->send(message);
}

void shard_copy::send_batches() {
  if (line_ == nullptr || last_sent_) return;
  while (under_way_ < window) {
    const auto unsent = held_->unsent();
    const auto piece = unsent.first(std::min(unsent.size(), max_batch));
    const bool last = input_over_ && piece.size() == unsent.size();
    if (!last && (piece.empty() || (piece.size() < small_batch && under_way_ > 0))) return;
    if (!line_->batch(number_, piece, last)) {
      line_ = nullptr;
      return splitter_lost("the connection broke");
    }
    held_->sent(piece.size());
    batches_.push_back(piece.size());
    under_way_ += piece.size();
    if (last) {
      last_sent_ = true;
      return;
    }
  }
}

void shard_copy::input_ends() {
  if (spec_.everywhere) return end_copies();
  send_batches();
}

void shard_copy::cuts_came(const copy::cut_list& cuts, bool end) {
  if (phase_ != phase::streaming || batches_.empty()) return;
  under_way_ -= batches_.front();
  batches_.pop_front();
  if (!held_->apply(cuts, out_)) {
    close_splitting();
    return splitter_lost("its cuts do not fit the input");
  }
  for (std::size_t shard = 0; shard < out_.size(); ++shard) {
    if (out_[shard].empty()) continue;
    const auto at = legs_.find(static_cast<std::uint32_t>(shard));
    if (at == legs_.end()) {
      close_splitting();
      return splitter_lost("its cuts name a shard that takes no part");
    }
    at->second->lease->send(out_[shard]);
    out_[shard].clear();
    if (out_[shard].capacity() > window) out_[shard].shrink_to_fit();
  }
  if (last_sent_ && batches_.empty()) {
    if (!end) return;   // what is wrong at the end of the input comes behind the cuts
    close_splitting();
    if (held_->held() > 0) return splitter_lost("its cuts leave out the end of the input");
    return end_copies();
  }
  if (held_->held() > max_held) {
    return fail({"54000",
                 "a row of COPY has more than " + std::to_string(max_held) +
                     " bytes before its sharding key",
                 "Name the columns, the key first.",
                 {}});
  }
  send_batches();
  client_.watch();
  client_.resume();
}

void shard_copy::end_copies() {
  if (phase_ != phase::streaming) return;
  phase_ = phase::ending;
  for (auto& [shard, one] : legs_) one->send_done();
}

void shard_copy::split_failed(const copy::split_error& why) {
  line_ = nullptr;
  fail(why.error, why.context, why.line);
}

void shard_copy::splitter_lost(std::string_view why) {
  line_ = nullptr;
  fail({"57P01", "the replicator that split the input of COPY is gone: " + std::string(why),
        "Nothing has been loaded; try again.", {}});
}

void shard_copy::close_splitting() {
  if (line_ != nullptr) std::exchange(line_, nullptr)->close(number_);
}

}  // namespace pgsled::frontend

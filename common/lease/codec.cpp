#include "common/lease/messages.hpp"

namespace pgsled::lease {
namespace {

constexpr std::uint8_t format_version = 1;

// Never change or reuse a value: the order of the variant is an accident, this is the format.
enum class tag : std::uint8_t {
  hello = 1, demand = 2, give_back = 3, recall_ack = 4, cancel = 5, orphans_left = 6,
  welcome = 16, grant = 17, recall = 18, retire = 19, cancel_done = 20, pool_failed = 21,
  // 22 was never sent and is not to be used.
};

class out {
 public:
  out(std::string& to, tag what) : to_(to) {
    put(format_version);
    put(static_cast<std::uint8_t>(what));
  }
  template <class Integer>
  out& put(Integer value) {
    char bytes[sizeof value];
    store_le(bytes, value);
    to_.append(bytes, sizeof bytes);
    return *this;
  }
  out& put(const std::string& text) {
    put(static_cast<std::uint32_t>(text.size()));
    to_.append(text);
    return *this;
  }
  out& put(const text_pairs& pairs) {
    put(static_cast<std::uint32_t>(pairs.size()));
    for (const auto& [name, value] : pairs) put(name).put(value);
    return *this;
  }
  out& put(const connection_state& state) {
    put(state.settings);
    put(static_cast<std::uint32_t>(state.statements.size()));
    for (const auto& id : state.statements) to_.append(as_text({id.data(), id.size()}));
    return put(state.unread);
  }

 private:
  std::string& to_;
};

// Keeps the first failure; after it everything read is zero or empty.
class in {
 public:
  explicit in(byte_span from) : rest_(from) {}
  template <class Integer>
  void get(Integer& value) {
    if (!has(sizeof value)) return;
    value = load_le<Integer>(rest_.data());
    rest_ = rest_.subspan(sizeof value);
  }
  void get(std::string& text) {
    std::uint32_t size = 0;
    get(size);
    if (!has(size)) return;
    text.assign(as_text(rest_.first(size)));
    rest_ = rest_.subspan(size);
  }
  void get(text_pairs& pairs) {
    pairs.resize(count(8));
    for (auto& [name, value] : pairs) {
      get(name);
      get(value);
    }
  }
  void get(connection_state& state) {
    get(state.settings);
    const auto statements = count(sizeof(statement_id));
    if (statements > max_statements) fail("too many statements");
    if (!ok()) return;
    state.statements.resize(statements);
    for (auto& id : state.statements) {
      std::memcpy(id.data(), rest_.data(), id.size());
      rest_ = rest_.subspan(id.size());
    }
    get(state.unread);
  }
  // The number of entries that follow, of which each takes at least `least` bytes; so what the
  // caller allocates is bounded by what has been received.
  std::size_t count(std::size_t least) {
    std::uint32_t entries = 0;
    get(entries);
    return has(entries * least) ? entries : 0;
  }
  void fail(const char* why) {
    if (why_ == nullptr) why_ = why;
    rest_ = {};
  }
  bool ok() const { return why_ == nullptr; }
  const char* why() const { return why_; }
  bool finished() const { return rest_.empty(); }

 private:
  bool has(std::size_t size) {
    if (ok() && rest_.size() >= size) return true;
    fail("truncated");
    return false;
  }
  byte_span rest_;
  const char* why_ = nullptr;
};

struct encoder {
  std::string& to;
  void operator()(const hello& m) const {
    out o(to, tag::hello);
    o.put(m.holder).put(m.epoch).put(m.network).put(static_cast<std::uint32_t>(m.orphans.size()));
    for (const auto& [pool, count] : m.orphans) o.put(pool).put(count);
  }
  void operator()(const demand& m) const {
    out(to, tag::demand).put(m.pool).put(m.waiting).put(m.epoch).put(m.oldest_ms)
        .put(m.map_epoch);
  }
  void operator()(const give_back& m) const {
    out(to, tag::give_back)
        .put(m.lease)
        .put(m.generation)
        .put(static_cast<std::uint8_t>(m.condition))
        .put(m.state)
        .put(m.parameters);
  }
  void operator()(const recall_ack& m) const { out(to, tag::recall_ack).put(m.pool); }
  void operator()(const cancel& m) const { out(to, tag::cancel).put(m.lease).put(m.generation); }
  void operator()(const orphans_left& m) const {
    out(to, tag::orphans_left).put(m.pool).put(m.count);
  }
  void operator()(const welcome& m) const { out(to, tag::welcome).put(m.pooler).put(m.boot); }
  void operator()(const grant& m) const {
    out(to, tag::grant)
        .put(m.pool)
        .put(m.lease)
        .put(m.generation)
        .put(m.backend_pid)
        .put(m.parameters)
        .put(m.state);
  }
  void operator()(const recall& m) const { out(to, tag::recall).put(m.pool).put(m.count); }
  void operator()(const retire& m) const { out(to, tag::retire).put(m.lease); }
  void operator()(const cancel_done& m) const {
    out(to, tag::cancel_done).put(m.lease).put(m.generation);
  }
  void operator()(const pool_failed& m) const {
    out(to, tag::pool_failed)
        .put(m.pool)
        .put(m.error.sqlstate)
        .put(m.error.message)
        .put(m.error.hint)
        .put(m.error.detail);
  }
};

message read_hello(in& i) {
  hello m;
  i.get(m.holder);
  i.get(m.epoch);
  i.get(m.network);
  m.orphans.resize(i.count(8));
  for (auto& [pool, count] : m.orphans) {
    i.get(pool);
    i.get(count);
  }
  return m;
}

message read_give_back(in& i) {
  give_back m;
  i.get(m.lease);
  i.get(m.generation);
  std::uint8_t how = 0;
  i.get(how);
  if (how > static_cast<std::uint8_t>(condition::broken)) i.fail("unknown condition");
  m.condition = static_cast<condition>(how);
  i.get(m.state);
  i.get(m.parameters);
  return m;
}

message read_grant(in& i) {
  grant m;
  i.get(m.pool);
  i.get(m.lease);
  i.get(m.generation);
  i.get(m.backend_pid);
  i.get(m.parameters);
  i.get(m.state);
  return m;
}

message read_pool_failed(in& i) {
  pool_failed m;
  i.get(m.pool);
  i.get(m.error.sqlstate);
  i.get(m.error.message);
  i.get(m.error.hint);
  i.get(m.error.detail);
  if (i.ok() && m.error.sqlstate.size() != 5) i.fail("SQLSTATE without five characters");
  return m;
}

template <class Message, class... Fields>
message read_plain(in& i, Fields Message::*... fields) {
  Message m;
  (i.get(m.*fields), ...);
  return m;
}

message read_body(in& i, tag what) {
  switch (what) {
    case tag::hello: return read_hello(i);
    case tag::demand:
      return read_plain(i, &demand::pool, &demand::waiting, &demand::epoch, &demand::oldest_ms,
                        &demand::map_epoch);
    case tag::give_back: return read_give_back(i);
    case tag::recall_ack: return read_plain(i, &recall_ack::pool);
    case tag::cancel: return read_plain(i, &cancel::lease, &cancel::generation);
    case tag::orphans_left: return read_plain(i, &orphans_left::pool, &orphans_left::count);
    case tag::welcome: return read_plain(i, &welcome::pooler, &welcome::boot);
    case tag::grant: return read_grant(i);
    case tag::recall: return read_plain(i, &recall::pool, &recall::count);
    case tag::retire: return read_plain(i, &retire::lease);
    case tag::cancel_done: return read_plain(i, &cancel_done::lease, &cancel_done::generation);
    case tag::pool_failed: return read_pool_failed(i);
  }
  i.fail("unknown message");
  return {};
}

}  // namespace

void encode(const message& from, std::string& to) { std::visit(encoder{to}, from); }

tl::expected<message, std::string> decode(byte_span from) {
  if (from.size() > max_message_bytes) return tl::unexpected<std::string>("too long");
  in i(from);
  std::uint8_t version = 0, what = 0;
  i.get(version);
  i.get(what);
  if (i.ok() && version != format_version) i.fail("unknown version");
  if (!i.ok()) return tl::unexpected<std::string>(i.why());
  auto read = read_body(i, static_cast<tag>(what));
  if (i.ok() && !i.finished()) i.fail("trailing bytes");
  if (!i.ok()) return tl::unexpected<std::string>(i.why());
  return read;
}

}  // namespace pgsled::lease

#include "common/management/connection.hpp"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

namespace pgsled::management {

namespace {

using clock = std::chrono::steady_clock;

std::string ssl_mode(const std::string& tls) {
  if (tls == "disabled") return "disable";
  if (tls == "verify_ca") return "verify-ca";
  if (tls == "verify_full") return "verify-full";
  return "prefer";
}

std::string one_line(const char* text) {
  std::string line = text == nullptr ? "" : text;
  while (!line.empty() && line.back() == '\n') line.pop_back();
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

struct result_deleter {
  void operator()(PGresult* one) const { PQclear(one); }
};
using result_ptr = std::unique_ptr<PGresult, result_deleter>;

}  // namespace

struct connection::state {
  PGconn* link = nullptr;
  const std::atomic<bool>* stop = nullptr;
  std::string where;
  std::chrono::milliseconds query_timeout{10'000};
  std::map<std::string, std::string> planned;   // name by text

  ~state() { PQfinish(link); }

  // True when the socket is ready; false at the deadline or when asked to stop.
  bool wait(short events, clock::time_point until) const {
    while (!stop->load(std::memory_order_relaxed)) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - clock::now()).count();
      if (left <= 0) return false;
      pollfd one{PQsocket(link), events, 0};
      const int ready = ::poll(&one, 1, static_cast<int>(std::min<std::int64_t>(left, 100)));
      if (ready > 0) return true;
    }
    return false;
  }

  pg_error failed() const {
    return {"08006", where + ": " + one_line(PQerrorMessage(link)), {}, {}};
  }
  pg_error late() const { return {"08006", where + ": no answer in time", {}, {}}; }
  pg_error error_of(const PGresult* one) const {
    pg_error error;
    const char* code = PQresultErrorField(one, PG_DIAG_SQLSTATE);
    const char* text = PQresultErrorField(one, PG_DIAG_MESSAGE_PRIMARY);
    error.sqlstate = code == nullptr ? "08006" : code;
    error.message = where + ": " + (text == nullptr ? one_line(PQerrorMessage(link)) : text);
    if (const char* hint = PQresultErrorField(one, PG_DIAG_MESSAGE_HINT)) error.hint = hint;
    if (const char* detail = PQresultErrorField(one, PG_DIAG_MESSAGE_DETAIL)) error.detail = detail;
    return error;
  }
  static std::int64_t count_of(PGresult* one) {
    const std::string_view text = PQcmdTuples(one);
    std::int64_t count = 0;
    std::from_chars(text.data(), text.data() + text.size(), count);
    return count;
  }
  static void read(const PGresult* one, rows& got) {
    got.clear();
    for (int row = 0; row < PQntuples(one); ++row) {
      auto& to = got.emplace_back();
      for (int column = 0; column < PQnfields(one); ++column) {
        to.emplace_back(PQgetvalue(one, row, column),
                        static_cast<std::size_t>(PQgetlength(one, row, column)));
      }
    }
  }

  // The next result, null after the last.
  result<PGresult*> result_by(clock::time_point until) const {
    while (PQisBusy(link) == 1) {
      if (!wait(POLLIN, until)) return tl::unexpected(late());
      if (PQconsumeInput(link) != 1) return tl::unexpected(failed());
    }
    return PQgetResult(link);
  }
  std::optional<pg_error> ask(const std::string& sql, rows* got,
                              std::vector<std::int64_t>* touched, std::string* tag = nullptr) {
    if (PQsendQuery(link, sql.c_str()) != 1) return failed();
    return answers(got, touched, tag);
  }
  std::optional<pg_error> again(const char* sql, const std::vector<std::string>& values,
                                rows& got);
  // All that comes for what was sent.
  std::optional<pg_error> answers(rows* got, std::vector<std::int64_t>* touched,
                                  std::string* tag = nullptr);
  // The last statement of `sql` is the COPY; what stands before it has no rows that matter.
  result<bool> begin_copy(const std::string& sql, ExecStatusType wanted) {
    if (PQsendQuery(link, sql.c_str()) != 1) return tl::unexpected(failed());
    const auto until = clock::now() + query_timeout;
    while (true) {
      auto next = result_by(until);
      if (!next) return tl::unexpected(next.error());
      const result_ptr one(*next);
      if (!one) return tl::unexpected(pg_error{"08P01", where + ": no COPY was begun", {}, {}});
      const ExecStatusType status = PQresultStatus(one.get());
      if (status == wanted) return true;
      if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) continue;
      auto error = error_of(one.get());
      if (const auto rest = finish(); !rest && rest.error().sqlstate == "08006") {
        return tl::unexpected(rest.error());
      }
      return tl::unexpected(std::move(error));
    }
  }
  // The results that are left: rows of the last command, or the first error.
  result<std::int64_t> finish() {
    const auto until = clock::now() + query_timeout;
    std::int64_t count = 0;
    std::optional<pg_error> error;
    while (true) {
      auto next = result_by(until);
      if (!next) return tl::unexpected(next.error());
      const result_ptr one(*next);
      if (!one) break;
      if (PQresultStatus(one.get()) == PGRES_COMMAND_OK) {
        count = count_of(one.get());
      } else if (!error) {
        error = error_of(one.get());
      }
    }
    if (error) return tl::unexpected(std::move(*error));
    return count;
  }
  struct memory_deleter {
    void operator()(char* one) const { PQfreemem(one); }
  };
  struct piece {
    std::unique_ptr<char, memory_deleter> bytes;
    int size = 0;                        // 0: nothing yet; below: the end
  };
  result<piece> copy_data(std::chrono::milliseconds patience) {
    const auto until = clock::now() + patience;
    while (true) {
      piece got;
      char* bytes = nullptr;
      got.size = PQgetCopyData(link, &bytes, 1);
      got.bytes.reset(bytes);
      if (got.size == -2) return tl::unexpected(failed());
      if (got.size != 0) return got;
      if (!wait(POLLIN, until)) {
        if (stop->load(std::memory_order_relaxed)) return tl::unexpected(late());
        return got;
      }
      if (PQconsumeInput(link) != 1) return tl::unexpected(failed());
    }
  }
  // Adds messages to `to` until it has `enough` bytes; false: these are the last. Most are there
  // already, and each costs as little as libpq lets it.
  result<bool> copy_rows(std::size_t enough, std::string& to, std::int64_t& messages) {
    while (to.size() < enough) {
      char* bytes = nullptr;
      const int size = PQgetCopyData(link, &bytes, 1);
      if (size > 0) {
        const std::unique_ptr<char, memory_deleter> owned(bytes);
        to.append(bytes, static_cast<std::size_t>(size));
        ++messages;
        continue;
      }
      if (size == -2) return tl::unexpected(failed());
      if (size < 0) return false;
      if (!wait(POLLIN, clock::now() + query_timeout)) return tl::unexpected(late());
      if (PQconsumeInput(link) != 1) return tl::unexpected(failed());
    }
    return true;
  }
  // Blocking mode would wait for ever for a server that does not read.
  result<bool> flush() {
    const auto until = clock::now() + query_timeout;
    for (int left = PQflush(link); left != 0; left = PQflush(link)) {
      if (left < 0) return tl::unexpected(failed());
      if (!wait(POLLIN | POLLOUT, until)) return tl::unexpected(late());
      if (PQconsumeInput(link) != 1) return tl::unexpected(failed());
    }
    return true;
  }
  result<bool> put(std::string_view bytes) {
    PQsetnonblocking(link, 1);
    const int taken = PQputCopyData(link, bytes.data(), static_cast<int>(bytes.size()));
    auto sent = taken == 1 ? flush() : result<bool>(tl::unexpected(failed()));
    PQsetnonblocking(link, 0);
    return sent;
  }
  result<bool> put_end(const char* why) {
    if (PQputCopyEnd(link, why) != 1) return tl::unexpected(failed());
    return true;
  }
  void cancel() const {
    PGcancel* with = PQgetCancel(link);
    std::array<char, 256> why{};
    PQcancel(with, why.data(), static_cast<int>(why.size()));
    PQfreeCancel(with);
  }
};

connection::connection(std::unique_ptr<state> made)
    : state_(std::move(made)) {}
connection::~connection() = default;
connection::connection(connection&&) noexcept = default;
connection& connection::operator=(connection&&) noexcept = default;

result<connection> connection::open(const address& to, const tls& tls,
                                    std::chrono::milliseconds timeout,
                                    const std::atomic<bool>& stop, const manner& how) {
  const std::string port = std::to_string(to.port), mode = ssl_mode(tls.mode);
  std::vector<const char*> names, values;
  const auto add = [&](const char* name, const std::string& value) {
    if (value.empty()) return;
    names.push_back(name);
    values.push_back(value.c_str());
  };
  // A server whose host is gone says nothing: this finds out within a minute.
  const std::string idle = "30", interval = "10", count = "3";
  const std::string encoding = "UTF8", replication = how.replication ? "database" : "";
  const std::string options =
      how.options + " -c search_path=pg_catalog -c default_transaction_read_only=off";
  add("host", to.host);
  add("port", port);
  add("dbname", to.database);
  add("user", to.user);
  add("password", to.password);
  add("sslmode", mode);
  add("sslrootcert", tls.ca_certificate);
  add("sslcert", tls.certificate);
  add("sslkey", tls.private_key);
  add("application_name", how.application);
  add("replication", replication);
  add("client_encoding", encoding);
  add("options", options);
  add("keepalives_idle", idle);
  add("keepalives_interval", interval);
  add("keepalives_count", count);
  names.push_back(nullptr);
  values.push_back(nullptr);
  auto made = std::make_unique<state>();
  made->stop = &stop;
  made->query_timeout = how.query_timeout;
  made->where = to.host + ":" + port;
  made->link = PQconnectStartParams(names.data(), values.data(), 0);
  if (made->link != nullptr) {
    PQsetNoticeProcessor(made->link, [](void*, const char*) {}, nullptr);   // else on stderr
  }
  const auto until = clock::now() + timeout;
  for (short events = POLLOUT;;) {
    if (made->link == nullptr || PQstatus(made->link) == CONNECTION_BAD) {
      return tl::unexpected(made->failed());
    }
    if (!made->wait(events, until)) return tl::unexpected(made->late());
    switch (PQconnectPoll(made->link)) {
      case PGRES_POLLING_READING: events = POLLIN; break;
      case PGRES_POLLING_WRITING: events = POLLOUT; break;
      case PGRES_POLLING_OK: return connection(std::move(made));
      default: return tl::unexpected(made->failed());
    }
  }
}

std::optional<pg_error> connection::state::again(const char* sql,
                                                 const std::vector<std::string>& values,
                                                 rows& got) {
  auto known = planned.find(sql);
  if (known == planned.end()) {
    const auto name = "again " + std::to_string(planned.size());
    if (PQsendPrepare(link, name.c_str(), sql, 0, nullptr) != 1) return failed();
    if (auto error = answers(nullptr, nullptr)) return error;
    known = planned.emplace(sql, name).first;
  }
  std::vector<const char*> texts;
  for (const auto& one : values) texts.push_back(one.c_str());
  const int sent = PQsendQueryPrepared(link, known->second.c_str(), static_cast<int>(texts.size()),
                                       texts.data(), nullptr, nullptr, 0);
  return sent == 1 ? answers(&got, nullptr) : failed();
}

std::optional<pg_error> connection::state::answers(rows* got, std::vector<std::int64_t>* touched,
                                                   std::string* tag) {
  const auto until = clock::now() + query_timeout;
  std::optional<pg_error> error;
  while (true) {
    auto next = result_by(until);
    if (!next) return next.error();
    const result_ptr one(*next);
    if (!one) return error;
    const ExecStatusType status = PQresultStatus(one.get());
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
      if (tag != nullptr) *tag = PQcmdStatus(one.get());
      if (touched != nullptr) touched->push_back(count_of(one.get()));
      if (status == PGRES_TUPLES_OK && got != nullptr) read(one.get(), *got);
    } else if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
      return pg_error{"08P01", where + ": the server began a COPY", {}, {}};
    } else if (status != PGRES_EMPTY_QUERY && !error) {
      error = error_of(one.get());
    }
  }
}

result<connection::rows> connection::query(const std::string& sql) {
  rows got;
  if (auto error = state_->ask(sql, &got, nullptr)) return tl::unexpected(std::move(*error));
  return got;
}

result<connection::rows> connection::again(const char* sql,
                                           const std::vector<std::string>& values) {
  rows got;
  if (auto error = state_->again(sql, values, got)) return tl::unexpected(std::move(*error));
  return got;
}

result<connection::told> connection::answer(const std::string& sql) {
  rows got;
  told to;
  if (auto error = state_->ask(sql, &got, nullptr, &to.tag)) {
    return tl::unexpected(std::move(*error));
  }
  if (!got.empty() && !got.front().empty()) to.value = got.front().front();
  return to;
}

int connection::server_version() const { return PQserverVersion(state_->link); }

void connection::wait_at_most(std::chrono::milliseconds query_timeout) {
  state_->query_timeout = query_timeout;
}

result<std::vector<std::int64_t>> connection::run(const std::string& sql) {
  std::vector<std::int64_t> touched;
  if (auto error = state_->ask(sql, nullptr, &touched)) return tl::unexpected(std::move(*error));
  return touched;
}

result<std::int64_t> connection::copy_out(const std::string& sql, std::size_t piece,
                                          const rows_sink& sink) {
  state& s = *state_;
  if (auto begun = s.begin_copy(sql, PGRES_COPY_OUT); !begun) {
    return tl::unexpected(begun.error());
  }
  std::optional<pg_error> refused;
  std::string bytes;
  bytes.reserve(piece * 2);
  for (bool over = false; !over;) {
    bytes.clear();
    std::int64_t messages = 0;
    const auto more = s.copy_rows(piece, bytes, messages);
    if (!more) return tl::unexpected(more.error());
    over = !*more;
    if (refused || messages == 0) continue;   // what is still under way
    if (const auto taken = sink(bytes, messages); !taken) {
      refused = taken.error();
      s.cancel();
    }
  }
  const auto end = s.finish();
  if (refused) return tl::unexpected(std::move(*refused));
  return end;
}

result<bool> connection::begin_copy_in(const std::string& sql) {
  return state_->begin_copy(sql, PGRES_COPY_IN);
}

result<bool> connection::put(std::string_view bytes) {
  return state_->put(bytes);
}

result<std::int64_t> connection::end_copy_in() {
  state& s = *state_;
  if (const auto ended = s.put_end(nullptr); !ended) return tl::unexpected(ended.error());
  return s.finish();
}

void connection::give_up_copy_in(const char* why) {
  if (state_->put_end(why)) (void)state_->finish();
}

result<bool> connection::begin_stream(const std::string& command) {
  return state_->begin_copy(command, PGRES_COPY_BOTH);
}

result<std::optional<std::string>> connection::receive(std::chrono::milliseconds wait) {
  auto row = state_->copy_data(wait);
  if (!row) return tl::unexpected(row.error());
  if (row->size == 0) return std::optional<std::string>();
  if (row->size < 0) {
    const auto end = state_->finish();
    return tl::unexpected(end ? pg_error{"08006", state_->where + ": the stream has ended", {}, {}}
                              : end.error());
  }
  return std::optional<std::string>(
      std::string(row->bytes.get(), static_cast<std::size_t>(row->size)));
}

result<bool> connection::send(std::string_view message) { return state_->put(message); }

void connection::cancel() const { state_->cancel(); }

std::string connection::literal(const std::string& text) const {
  char* quoted = PQescapeLiteral(state_->link, text.data(), text.size());
  if (quoted == nullptr) return "NULL";
  std::string made(quoted);
  PQfreemem(quoted);
  return made;
}

}  // namespace pgsled::management

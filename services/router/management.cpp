#include "services/router/management.hpp"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>

namespace pgsled::router {

namespace {

using clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds query_timeout{10'000};

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

struct management_connection::state {
  PGconn* link = nullptr;
  const std::atomic<bool>* stop = nullptr;
  std::string where;

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
};

management_connection::management_connection(std::unique_ptr<state> made)
    : state_(std::move(made)) {}
management_connection::~management_connection() = default;
management_connection::management_connection(management_connection&&) noexcept = default;
management_connection& management_connection::operator=(management_connection&&) noexcept = default;

result<management_connection> management_connection::open(const shard_address& to,
                                                          const management_tls& tls,
                                                          std::chrono::milliseconds timeout,
                                                          const std::atomic<bool>& stop) {
  const std::string port = std::to_string(to.port), mode = ssl_mode(tls.mode);
  std::vector<const char*> names, values;
  const auto add = [&](const char* name, const std::string& value) {
    if (value.empty()) return;
    names.push_back(name);
    values.push_back(value.c_str());
  };
  const std::string application = "pgsled router", encoding = "UTF8";
  const std::string options =
      "-c statement_timeout=10s -c search_path=pg_catalog -c default_transaction_read_only=off";
  add("host", to.host);
  add("port", port);
  add("dbname", to.database);
  add("user", to.user);
  add("password", to.password);
  add("sslmode", mode);
  add("sslrootcert", tls.ca_certificate);
  add("sslcert", tls.certificate);
  add("sslkey", tls.private_key);
  add("application_name", application);
  add("client_encoding", encoding);
  add("options", options);
  names.push_back(nullptr);
  values.push_back(nullptr);
  auto made = std::make_unique<state>();
  made->stop = &stop;
  made->where = to.host + ":" + port;
  made->link = PQconnectStartParams(names.data(), values.data(), 0);
  const auto until = clock::now() + timeout;
  for (short events = POLLOUT;;) {
    if (made->link == nullptr || PQstatus(made->link) == CONNECTION_BAD) {
      return tl::unexpected(made->failed());
    }
    if (!made->wait(events, until)) return tl::unexpected(made->late());
    switch (PQconnectPoll(made->link)) {
      case PGRES_POLLING_READING: events = POLLIN; break;
      case PGRES_POLLING_WRITING: events = POLLOUT; break;
      case PGRES_POLLING_OK: return management_connection(std::move(made));
      default: return tl::unexpected(made->failed());
    }
  }
}

result<management_connection::rows> management_connection::query(const std::string& sql) {
  state& s = *state_;
  if (PQsendQuery(s.link, sql.c_str()) != 1) return tl::unexpected(s.failed());
  const auto until = clock::now() + query_timeout;
  rows got;
  pg_error error;
  bool bad = false;
  while (true) {
    while (PQisBusy(s.link) == 1) {
      if (!s.wait(POLLIN, until)) return tl::unexpected(s.late());
      if (PQconsumeInput(s.link) != 1) return tl::unexpected(s.failed());
    }
    const result_ptr one(PQgetResult(s.link));
    if (!one) break;
    const ExecStatusType status = PQresultStatus(one.get());
    if (status == PGRES_TUPLES_OK) {
      got.clear();
      for (int row = 0; row < PQntuples(one.get()); ++row) {
        auto& to = got.emplace_back();
        for (int column = 0; column < PQnfields(one.get()); ++column) {
          to.emplace_back(PQgetvalue(one.get(), row, column),
                          static_cast<std::size_t>(PQgetlength(one.get(), row, column)));
        }
      }
    } else if (status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY && !bad) {
      bad = true;
      const char* code = PQresultErrorField(one.get(), PG_DIAG_SQLSTATE);
      const char* text = PQresultErrorField(one.get(), PG_DIAG_MESSAGE_PRIMARY);
      error.sqlstate = code == nullptr ? "08006" : code;
      error.message = s.where + ": " + (text == nullptr ? one_line(PQerrorMessage(s.link)) : text);
    }
  }
  if (bad) return tl::unexpected(std::move(error));
  return got;
}

std::string management_connection::literal(const std::string& text) const {
  char* quoted = PQescapeLiteral(state_->link, text.data(), text.size());
  if (quoted == nullptr) return "NULL";
  std::string made(quoted);
  PQfreemem(quoted);
  return made;
}

}  // namespace pgsled::router

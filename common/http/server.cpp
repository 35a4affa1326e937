// The only file that includes Boost.Beast: it costs a quarter of a minute to compile.
#include "common/http/server.hpp"

#include <pthread.h>
#include <signal.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <optional>
#include <thread>

#include "common/log/log.hpp"

namespace pgsled::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using asio::ip::tcp;
using error_code = boost::system::error_code;

constexpr int max_connections = 64;
constexpr std::uint32_t max_request_bytes = 8 * 1024;
constexpr std::chrono::seconds patience{5};

class connection : public std::enable_shared_from_this<connection> {
 public:
  connection(tcp::socket socket, const server::handler& to, int& count)
      : stream_(std::move(socket)), handler_(to), count_(count) {
    ++count_;
  }
  ~connection() { --count_; }
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;

  void read() {
    parser_.emplace();
    parser_->header_limit(max_request_bytes);
    parser_->body_limit(max_request_bytes);
    stream_.expires_after(patience);
    beast::http::async_read(stream_, buffer_, *parser_,
                            [self = shared_from_this()](error_code ec, std::size_t) {
                              if (!ec) self->answer();
                            });
  }

 private:
  void answer() {
    const auto& asked = parser_->get();
    const bool get = asked.method() == beast::http::verb::get;
    const bool head = asked.method() == beast::http::verb::head;
    response made{405, "text/plain; charset=utf-8", "only GET and HEAD are served\n"};
    if (get || head) {
      const std::string target(asked.target());
      made = ask_owner({target.substr(0, target.find('?')),
                        std::string(asked[beast::http::field::accept])});
    }
    answer_.emplace(static_cast<beast::http::status>(made.status), asked.version());
    answer_->set(beast::http::field::content_type, made.content_type);
    answer_->keep_alive(asked.keep_alive());
    answer_->content_length(made.body.size());
    if (!head) answer_->body() = std::move(made.body);
    stream_.expires_after(patience);
    beast::http::async_write(stream_, *answer_,
                             [self = shared_from_this()](error_code ec, std::size_t) {
                               if (ec) return;
                               if (self->answer_->keep_alive()) return self->read();
                               error_code ignored;
                               self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
                             });
  }

  response ask_owner(const request& asked) {
    try {
      return handler_(asked);
    } catch (const std::exception& e) {
      log::error("http", "{} failed: {}", asked.path, e.what());
      return {500, "text/plain; charset=utf-8", "internal error, see the log\n"};
    }
  }

  beast::tcp_stream stream_;
  const server::handler& handler_;
  int& count_;
  beast::flat_buffer buffer_{max_request_bytes * 2};
  std::optional<beast::http::request_parser<beast::http::string_body>> parser_;
  std::optional<beast::http::response<beast::http::string_body>> answer_;
};

}  // namespace

struct server::state {
  server::handler on_request;
  int connections = 0;  // outlives the connections that count in it
  asio::io_context loop{1};
  tcp::acceptor acceptor{loop};
  std::thread thread;

  void accept() {
    acceptor.async_accept([this](error_code ec, tcp::socket socket) {
      if (ec == asio::error::operation_aborted) return;
      if (!ec && connections < max_connections)
        std::make_shared<connection>(std::move(socket), on_request, connections)->read();
      if (!ec) return accept();
      // Out of descriptors, most likely: trying again at once would only burn the processor.
      retry.expires_after(std::chrono::milliseconds(200));
      retry.async_wait([this](error_code stopped) {
        if (!stopped) accept();
      });
    });
  }
  asio::steady_timer retry{loop};
};

server::server() : state_(std::make_unique<state>()) {}

server::~server() {
  state_->loop.stop();
  if (state_->thread.joinable()) state_->thread.join();
}

result<std::string> server::start(const std::string& address, handler on_request) {
  const auto colon = address.rfind(':');
  if (colon == std::string::npos)
    return failure("F0000", fmt::format("\"{}\" is not HOST:PORT", address));
  std::string host = address.substr(0, colon);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  state& s = *state_;
  error_code ec;
  const auto bad = [&] {
    return failure("08006", fmt::format("could not serve HTTP on {}: {}", address, ec.message()));
  };
  const auto found = tcp::resolver(s.loop).resolve(host.empty() ? "0.0.0.0" : host,
                                                   address.substr(colon + 1),
                                                   tcp::resolver::passive, ec);
  if (ec || found.empty()) return bad();
  const tcp::endpoint end = found.begin()->endpoint();
  s.acceptor.open(end.protocol(), ec);
  if (!ec) s.acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) s.acceptor.bind(end, ec);
  if (!ec) s.acceptor.listen(max_connections, ec);
  if (ec) return bad();
  s.on_request = std::move(on_request);
  s.accept();
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  s.thread = std::thread([this] {
    pthread_setname_np(pthread_self(), "http");
    state_->loop.run();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  const auto numeric = end.address().to_string();
  const auto port = s.acceptor.local_endpoint(ec).port();
  return end.address().is_v6() ? fmt::format("[{}]:{}", numeric, port)
                               : fmt::format("{}:{}", numeric, port);
}

}  // namespace pgsled::http

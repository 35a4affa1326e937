#pragma once
// split_server: splits the COPYs of frontends. Workers reach it over ZeroMQ (docs/formats/copy.md):
// each batch of a COPY's input is answered by the cuts it makes certain. Keeps nothing of the rows;
// a COPY lives in one process from its beginning to its end. Thread rule: the reactor's. Bounds:
// max_copies at a time, of each one row's key; a worker not heard for a silence is dropped.

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/bus/hub.hpp"
#include "common/copy/splitter.hpp"
#include "common/metrics/metrics.hpp"

namespace pgsled::replicator {

class split_server {
 public:
  static constexpr std::size_t max_copies = 256;
  static constexpr std::size_t max_batch = 256 * 1024;
  static constexpr auto usual_silence = std::chrono::seconds(10);

  split_server(net::reactor&, std::shared_ptr<bus::context>, std::string endpoint,
               bus::curve_keys, net::duration silence = usual_silence);
  ~split_server();
  split_server(const split_server&) = delete;
  split_server& operator=(const split_server&) = delete;

  result<std::string> start();  // the endpoint in effect
  void allow(const std::vector<std::string>& client_keys);
  void drain() { draining_ = true; }   // takes no new ones
  std::size_t active() const { return active_; }

 private:
  struct worker {
    std::uint64_t incarnation = 0;
    net::time_point heard{};
    std::unordered_map<std::uint64_t, std::unique_ptr<copy::splitter>> copies;
  };
  void receive(const std::string& from, const bus::envelope&);
  void open(const std::string& from, worker&, const bus::envelope&);
  void batch(const std::string& from, worker&, const bus::envelope&);
  void fail(const std::string& to, std::uint64_t number, const copy::split_error&);
  void forget(worker&);
  void sweep();

  net::reactor& reactor_;
  net::duration silence_;
  std::unordered_map<std::string, worker> workers_;
  std::size_t active_ = 0;
  bool draining_ = false;
  net::time_point swept_ = net::clock::now();
  net::reactor::timer_id timer_ = 0;
  metrics::cell open_, opened_, failed_, bytes_;
  std::vector<std::shared_ptr<void>> series_;
  bus::hub hub_;
};

}  // namespace pgsled::replicator

#pragma once
// split_line: a worker's line to one replicator, which splits its COPYs (docs/formats/copy.md).
// What is under way when the line breaks, or has not been heard of for `silence`, is lost as a
// whole: the splitter's state was there. Thread rule: its worker's.

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "common/bus/hub.hpp"
#include "common/copy/splitter.hpp"
#include "common/snapshot/snapshot.hpp"

namespace pgsled::frontend {

class worker;

// Who runs a COPY. Called from the loop, never from inside a call to the line.
class split_user {
 public:
  // The answer to the oldest batch that has none. `end`: it was the last one, and all is well.
  virtual void cuts_came(const copy::cut_list&, bool end) = 0;
  // Nothing more comes, for either of them.
  virtual void split_failed(const copy::split_error&) = 0;
  virtual void splitter_lost(std::string_view why) = 0;

 protected:
  ~split_user() = default;
};

class split_line {
 public:
  static constexpr auto silence = std::chrono::seconds(5);

  split_line(worker&, snapshot::replicator_ref);
  ~split_line();
  split_line(const split_line&) = delete;
  split_line& operator=(const split_line&) = delete;

  bool ready() const { return connected_; }
  std::size_t copies() const { return users_.size(); }
  const std::string& instance() const { return replicator_.instance; }
  const snapshot::replicator_ref& replicator() const { return replicator_; }

  // The number of the COPY; nothing: the line cannot take it.
  std::optional<std::uint64_t> open(const copy::spec&, split_user&);
  // False: lost; the user is not told again.
  bool batch(std::uint64_t number, byte_span bytes, bool last);
  void close(std::uint64_t number);

 private:
  bool send(bus::kind, std::uint64_t number, byte_span payload, std::uint16_t flags = 0);
  void receive(const bus::envelope&);
  void connection(bool connected);
  void lose(std::string_view why);
  void beat();

  worker& worker_;
  snapshot::replicator_ref replicator_;
  std::unordered_map<std::uint64_t, split_user*> users_;
  std::uint64_t next_ = 0, incarnation_ = 0;
  net::time_point heard_{};
  net::reactor::timer_id timer_ = 0;
  bool connected_ = false;
  std::unique_ptr<bus::link> link_;
};

}  // namespace pgsled::frontend

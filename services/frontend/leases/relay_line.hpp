#pragma once
// relay_line: the relay lane to a pooler on another host: lease messages and the bytes of leases
// over ZeroMQ, in batches with credit. Each lease's bytes are a server_stream, so that nothing else
// in the frontend knows the difference. Thread rule: its worker's.

#include <memory>

#include "services/frontend/leases/lease_channel.hpp"

namespace pgsled::frontend {

std::unique_ptr<lease_line> make_relay_line(worker&, snapshot::pooler_ref pooler);

}  // namespace pgsled::frontend

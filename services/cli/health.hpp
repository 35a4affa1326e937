#pragma once
// pgsled health: asks a process of this host whether it is ready, for health checks of containers.

#include <string>

namespace pgsled::cli {

// Prints what /readyz of `address` (HOST:PORT, numeric; 0.0.0.0 and :: mean this host) says. The
// exit status: 0 it is ready, 1 it is not or does not answer within 3 s, 2 no such address.
int health(const std::string& address);

}  // namespace pgsled::cli

#pragma once
// The frontend process: waits for the first snapshot, starts the workers, drains them.

#include "common/app/app.hpp"

namespace pgsled::frontend {

int run_frontend(app::options options);

}  // namespace pgsled::frontend

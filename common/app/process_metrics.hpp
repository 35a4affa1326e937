#pragma once
// What every process says of itself: version, start, processor time, memory, descriptors.
// Internal to common/app.

#include <memory>
#include <vector>

namespace pgsled::app {

// The series live as long as the returned tokens.
std::vector<std::shared_ptr<void>> register_process_metrics();

}  // namespace pgsled::app

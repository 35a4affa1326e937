#pragma once
// What the salts of SCRAM are derived from, of users with a plain password and of names that are
// nobody's alike: were they to change apart, with the frontend that answers or with a new router,
// they would tell which names exist.

#include <string>

namespace pgsled::router {

// The one kept in the run directory (login_seed, mode 0600), made if there is none. One that cannot
// be kept is logged, and lasts as long as this router. Secret; ASCII.
std::string login_seed(const std::string& run_dir);

}  // namespace pgsled::router

#include "services/replicator/move/schema.hpp"

#include <gtest/gtest.h>

namespace pgsled::replicator {
namespace {

TEST(move_schema, commands_of_psql_are_left_out) {
  EXPECT_EQ(without_psql_commands("--\n\\restrict abc\nCREATE TABLE t ();\n\\unrestrict abc\n"),
            "--\nCREATE TABLE t ();\n");
  EXPECT_EQ(without_psql_commands("SELECT 1;"), "SELECT 1;");
  EXPECT_EQ(without_psql_commands("SELECT '\n \\restrict x';\n"), "SELECT '\n \\restrict x';\n");
  EXPECT_EQ(without_psql_commands(""), "");
}

}  // namespace
}  // namespace pgsled::replicator

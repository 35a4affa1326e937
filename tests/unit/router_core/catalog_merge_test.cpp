// What the catalogs of other shards take from that of the first one.

#include "services/router/shards/catalog_merge.hpp"

#include <gtest/gtest.h>

namespace pgsled::router {
namespace {

plan::catalog users(std::vector<std::string> columns,
                    std::vector<plan::catalog::column_type> types) {
  plan::catalog made;
  made.loaded = true;
  made.tables.push_back({"public", "users", std::move(columns), std::move(types)});
  made.safe_functions = {"now", "lower"};
  made.immutable_functions = {"lower", "abs"};
  return made;
}

TEST(catalog_merge, the_same_is_no_difference) {
  auto first = users({"id", "name"}, {{"int8"}, {"varchar", 10}});
  merge_catalog(first, users({"id", "name"}, {{"int4"}, {"varchar", 10}}), 1);
  plan::catalog without;
  without.safe_functions = first.safe_functions;
  merge_catalog(first, without, 2);   // a missing table says so itself
  EXPECT_TRUE(first.tables[0].differs.empty()) << "integers of all sizes hash alike";
  EXPECT_TRUE(first.tables[0].ordered);
  EXPECT_EQ(first.safe_functions.size(), 2u);
}

TEST(catalog_merge, another_type_length_or_collation_is_one) {
  auto first = users({"id", "name", "note", "gone"},
                     {{"int8"}, {"varchar", 10}, {"text"}, {"text"}});
  merge_catalog(first, users({"id", "name", "note"},
                             {{"text"}, {"varchar", 5}, {"text", 0, false}}), 3);
  const auto& found = first.tables[0].differs;
  EXPECT_EQ(found.at("id"), "is of type text on shard 3, and of an integer type elsewhere");
  EXPECT_EQ(found.at("name"),
            "is of type varchar(5) on shard 3, and of type varchar(10) elsewhere");
  EXPECT_EQ(found.at("note"),
            "is of type text with a nondeterministic collation on shard 3, and of type text "
            "elsewhere");
  EXPECT_EQ(found.at("gone"), "is missing on shard 3");
  EXPECT_FALSE(first.tables[0].ordered);
}

TEST(catalog_merge, only_what_is_safe_and_open_everywhere_is) {
  auto first = users({"id", "name"}, {{"int8"}, {"text"}});
  auto other = users({"name", "id"}, {{"text"}, {"int8"}});
  other.safe_functions = {"now"};
  other.immutable_functions = {"abs"};
  other.hides_sharded = {"public.v"};
  merge_catalog(first, other, 1);
  EXPECT_TRUE(first.tables[0].differs.empty());
  EXPECT_FALSE(first.tables[0].ordered) << "another order";
  EXPECT_EQ(first.safe_functions, std::set<std::string>{"now"});
  EXPECT_EQ(first.immutable_functions, std::set<std::string>{"abs"});
  EXPECT_TRUE(first.hides_sharded.contains("public.v"));
}

TEST(catalog_merge, a_path_that_is_another_one_elsewhere_is_not_known) {
  auto first = users({}, {}), other = users({}, {});
  merge_catalog(first, other, 1);
  EXPECT_EQ(first.path_of("a"), "\"$user\", public");
  first.paths = {{"a", "x"}, {"", "y"}};
  other.paths = {{"a", "x"}, {"b", "z"}, {"", "y"}};
  merge_catalog(first, other, 2);
  EXPECT_EQ(first.path_of("a"), "x");
  EXPECT_EQ(first.path_of("b"), plan::unknown_path);
  EXPECT_EQ(first.path_of("c"), "y");
  other.paths.erase("");
  merge_catalog(first, other, 3);
  EXPECT_EQ(first.path_of("c"), plan::unknown_path);
  EXPECT_EQ(first.path_of("a"), "x");
}

}  // namespace
}  // namespace pgsled::router

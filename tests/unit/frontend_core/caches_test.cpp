// Bounds and identity of what a worker remembers: plans, prepared statements by content.

#include <gtest/gtest.h>

#include "services/frontend/leases/present.hpp"
#include "services/frontend/statements/plans.hpp"
#include "services/frontend/statements/statements.hpp"

namespace pgsled::frontend {

std::string server_statement_name(const lease::statement_id&);
lease::statement_id statement_id_of(std::string_view name);

namespace {

plan_ref plan_of(std::uint64_t epoch) {
  auto made = std::make_shared<cached_plan>();
  made->epoch = epoch;
  return made;
}

TEST(plan_cache, finds_what_was_inserted_under_its_epoch) {
  probe counters;
  plan_cache cache(counters);
  const auto made = plan_of(7);
  cache.insert("key", made);
  EXPECT_EQ(cache.find("key", 7), made);
  EXPECT_EQ(cache.find("other", 7), nullptr);
  EXPECT_EQ(cache.find(std::string_view("ke"), 7), nullptr);
}

TEST(plan_cache, forgets_a_plan_of_another_epoch) {
  probe counters;
  plan_cache cache(counters);
  cache.insert("key", plan_of(7));
  EXPECT_EQ(cache.find("key", 8), nullptr);
  EXPECT_EQ(cache.find("key", 7), nullptr) << "for good";
}

TEST(plan_cache, a_later_plan_replaces_the_earlier) {
  probe counters;
  plan_cache cache(counters);
  cache.insert("key", plan_of(1));
  const auto bytes = counters.plan_cache_bytes.get();
  const auto second = plan_of(2);
  cache.insert("key", second);
  EXPECT_EQ(counters.plan_cache_bytes.get(), bytes);
  EXPECT_EQ(cache.find("key", 2), second);
  EXPECT_EQ(counters.plan_cache_evictions.get(), 0U);
}

TEST(plan_cache, evicts_the_least_recently_used_at_its_limit) {
  probe counters;
  plan_cache cache(counters);
  cache.insert("0", plan_of(1));
  const auto each = counters.plan_cache_bytes.get();
  cache.set_limit(static_cast<std::size_t>(each) * 3);
  cache.insert("1", plan_of(1));
  cache.insert("2", plan_of(1));
  EXPECT_EQ(counters.plan_cache_evictions.get(), 0U) << "the limit itself is allowed";
  EXPECT_NE(cache.find("0", 1), nullptr);
  cache.insert("3", plan_of(1));
  EXPECT_EQ(counters.plan_cache_evictions.get(), 1U);
  EXPECT_EQ(cache.find("1", 1), nullptr);
  EXPECT_NE(cache.find("0", 1), nullptr);
  EXPECT_NE(cache.find("2", 1), nullptr);
  EXPECT_NE(cache.find("3", 1), nullptr);
}

TEST(plan_cache, stays_within_its_limit_under_ever_new_keys) {
  probe counters;
  plan_cache cache(counters);
  cache.set_limit(64 * 1024);
  for (int i = 0; i < 5000; ++i) {
    cache.insert(std::string(static_cast<std::size_t>(i % 500), 'k') + std::to_string(i),
        plan_of(1));
    EXPECT_LE(counters.plan_cache_bytes.get(), 64U * 1024);
  }
  EXPECT_GT(counters.plan_cache_evictions.get(), 4500U);
  cache.clear();
  EXPECT_EQ(counters.plan_cache_bytes.get(), 0U);
  EXPECT_EQ(cache.find("4999", 1), nullptr);
}

TEST(plan_cache, what_is_larger_than_the_limit_is_held_alone) {
  probe counters;
  plan_cache cache(counters);
  cache.set_limit(10);
  cache.insert("a", plan_of(1));
  cache.insert("b", plan_of(1));
  EXPECT_EQ(cache.find("a", 1), nullptr);
  EXPECT_NE(cache.find("b", 1), nullptr);
}

const std::string int4("\0\0\0\x17", 4), int8("\0\0\0\x14", 4);

TEST(statement_cache, one_object_for_one_content) {
  probe counters;
  statement_cache cache(counters);
  const auto a = cache.find_or_add("SELECT $1", as_bytes(int4), {}, true);
  EXPECT_EQ(cache.find_or_add("SELECT $1", as_bytes(int4), {}, true), a);
  EXPECT_NE(cache.find_or_add("SELECT $1", as_bytes(int8), {}, true), a);
  EXPECT_NE(cache.find_or_add("SELECT $1", {}, {}, true), a);
  EXPECT_NE(cache.find_or_add("SELECT  $1", as_bytes(int4), {}, true), a);
}

TEST(statement_cache, ids_are_stable_and_differ_by_text_and_types) {
  probe counters;
  statement_cache one(counters), two(counters);
  const auto a = one.find_or_add("SELECT $1", as_bytes(int4), {}, true);
  const auto b = two.find_or_add("SELECT $1", as_bytes(int4), {}, true);
  EXPECT_EQ(a->id(), b->id());
  EXPECT_EQ(a->server_name(), b->server_name());
  EXPECT_NE(a->id(), one.find_or_add("SELECT $1", as_bytes(int8), {}, true)->id());
  EXPECT_NE(a->id(), one.find_or_add("SELECT $1", {}, {}, true)->id());
  EXPECT_NE(a->id(), one.find_or_add("SELECT $2", as_bytes(int4), {}, true)->id());
  // Other frontends may know the name of this one: it may not change from version to version.
  EXPECT_EQ(one.find_or_add("SELECT 1", {}, {}, true)->server_name(),
      "__pgsled_0774ffe4bf4c67d1142d139364b6e4fa");
}

TEST(statement_cache, names_and_ids_are_each_others_inverse) {
  probe counters;
  statement_cache cache(counters);
  for (int i = 0; i < 100; ++i) {
    const auto each = cache.find_or_add("SELECT " + std::to_string(i), {}, {}, true);
    EXPECT_EQ(server_statement_name(each->id()), each->server_name());
    EXPECT_EQ(statement_id_of(each->server_name()), each->id());
    EXPECT_LT(each->server_name().size(), 64U) << "PostgreSQL's own limit of names";
  }
}

TEST(statement_cache, effects_are_found_once) {
  probe counters;
  statement_cache cache(counters);
  EXPECT_EQ(cache.find_or_add("SELECT 1", {}, {}, true)->effects, nullptr);
  const auto set = cache.find_or_add("SET a.b = 1", {}, {}, true);
  ASSERT_NE(set->effects, nullptr);
  ASSERT_EQ(set->effects->size(), 1U);
  EXPECT_EQ(set->effects->front().name, "a.b");
}

TEST(statement_cache, evicts_at_its_limit_and_lives_on_while_used) {
  probe counters;
  statement_cache cache(counters);
  const auto kept = cache.find_or_add("SELECT 'kept'", {}, {}, true);
  const auto each = static_cast<std::size_t>(counters.statement_cache_bytes.get());
  cache.set_limit(each * 3 + 20);
  for (int i = 0; i < 1000; ++i) {
    cache.find_or_add("SELECT 'n" + std::to_string(i % 10 + 10) + "x" + std::to_string(i) + "'", {}, {},
        true);
    EXPECT_LE(counters.statement_cache_bytes.get(), each * 3 + 20);
  }
  EXPECT_GE(counters.statement_cache_evictions.get(), 997U);
  EXPECT_EQ(kept->sql, "SELECT 'kept'");
  EXPECT_NE(cache.find_or_add("SELECT 'kept'", {}, {}, true), kept) << "was evicted from the cache";
  EXPECT_EQ(cache.find_or_add("SELECT 'kept'", {}, {}, true)->id(), kept->id());
}

TEST(statement_cache, recently_used_ones_stay) {
  probe counters;
  statement_cache cache(counters);
  const auto kept = cache.find_or_add("SELECT 0", {}, {}, true);
  cache.set_limit(static_cast<std::size_t>(counters.statement_cache_bytes.get()) * 4);
  for (int i = 1; i < 9; ++i) {
    cache.find_or_add("SELECT " + std::to_string(i), {}, {}, true);
    EXPECT_EQ(cache.find_or_add("SELECT 0", {}, {}, true), kept);
  }
}

TEST(present_statements, those_unused_for_longest_go_first) {
  present_statements present;
  const auto made = std::make_shared<statement>();
  for (const char* name : {"a", "b", "c", "d"}) present.add(name, made);
  EXPECT_TRUE(present.use("a"));
  EXPECT_FALSE(present.use("e"));
  EXPECT_EQ(present.take_oldest(2), (std::vector<std::string>{"b", "c"}));
  EXPECT_FALSE(present.contains("b"));
  EXPECT_EQ(present.size(), 2u);
  EXPECT_EQ(present.take_oldest(9), (std::vector<std::string>{"d", "a"}));
}

TEST(present_statements, a_parse_that_was_dropped_takes_only_its_own) {
  present_statements present;
  const auto one = std::make_shared<statement>(), other = std::make_shared<statement>();
  present.add("one", one);
  present.add("other", other);
  present.add("came with the lease", nullptr);
  present.remove(one.get());
  EXPECT_FALSE(present.contains("one"));
  EXPECT_TRUE(present.contains("other"));
  EXPECT_TRUE(present.contains("came with the lease"));
}

}  // namespace
}  // namespace pgsled::frontend

#include "common/snapshot/move.hpp"

#include <boost/describe/class.hpp>

#include "common/snapshot/fields.hpp"

namespace pgsled::snapshot {

BOOST_DESCRIBE_STRUCT(move_request, (), (do_, database, job, buckets, wait_ms, to, whole, lost))
BOOST_DESCRIBE_STRUCT(move_shard, (), (number, host, port, database, user, password))
BOOST_DESCRIBE_STRUCT(move_table, (),
                      (schema, name, column, data_type, hasher, by_mapping, mapping))
BOOST_DESCRIBE_STRUCT(move_tls, (), (mode, ca_certificate, certificate, private_key))
BOOST_DESCRIBE_STRUCT(move_manner, (),
                      (copies, binary, copy_rate, slot_limit, pg_dump, traffic_stop_threshold,
                       lag_threshold, last_transaction_delay, timeout))
BOOST_DESCRIBE_STRUCT(move_where, (), (shards, epoch, buckets, tables, tls, moving, manner))
BOOST_DESCRIBE_STRUCT(cluster_where, (), (from, to, moving, epoch))
BOOST_DESCRIBE_STRUCT(move_answer, (), (epoch, fence, moves))

template std::string to_json(const move_request&);
template std::string to_json(const move_where&);
template std::string to_json(const cluster_where&);
template std::string to_json(const move_answer&);
template result<move_request> from_json(std::string_view);
template result<move_where> from_json(std::string_view);
template result<cluster_where> from_json(std::string_view);
template result<move_answer> from_json(std::string_view);

}  // namespace pgsled::snapshot

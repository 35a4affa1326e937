"""What the integration tests, the soak runs and the bench share: a PostgreSQL of their own, the
suite under test, raw protocol clients and servers, load that notices wrong answers."""

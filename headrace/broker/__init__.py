"""The embedded broker: a Kafka broker of one process on loopback, for the demo, for tests and for one machine."""

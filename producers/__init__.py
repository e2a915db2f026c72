"""What feeds the topics: simulated devices and replayed recordings."""

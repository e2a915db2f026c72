"""Groups that span partitions, in two stages, and the messages between them."""

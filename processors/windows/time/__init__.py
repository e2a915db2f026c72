"""How far event time is: watermarks, clocks of the partitions that come together, what is closed by then."""

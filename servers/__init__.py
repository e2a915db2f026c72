"""Real servers for tests and benches: started privately, shared, and ended. No part of what is installed."""

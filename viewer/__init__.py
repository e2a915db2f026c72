"""What is new in the store, on a live page."""

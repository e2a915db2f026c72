"""What happens to readings before any window sees them: devices and groups, deduplication, order, lateness."""

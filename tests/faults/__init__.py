"""The fault suite: the whole line on real servers, disturbed on purpose, and recounted by other code."""

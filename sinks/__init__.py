"""Topics to supertables."""

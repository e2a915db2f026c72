"""The kinds of windows: where they begin and end, what is open of each, what they emit."""

"""Files that nobody should give and somebody will: made by `make`, and a few dozen by hand in `files`."""

"""How weights lie in tiles. What lays them out, what asks for room, and what is compiled must agree on it."""

LANES = 64  # Outputs in a tile.
MOST_ROWS = 8  # Rows that one pass over a tile multiplies; rooms for rows are a multiple of it.
HEAD_STEP = 16  # The width of an attention head is a multiple of it.
AHEAD = 4096  # Bytes: how far before its use a weight is asked for, so many more may be asked for at the end.

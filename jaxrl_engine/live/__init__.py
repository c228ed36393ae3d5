"""The wall: what a run shows of itself in a browser while it works, and afterwards from a recording."""

"""Flying base stations: radio channels, association, backhaul, and the two worlds made of them."""

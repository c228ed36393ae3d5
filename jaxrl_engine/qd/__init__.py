"""Quality-diversity: cells, a repertoire that knows how old its measurements are, arms as genotypes, variation."""

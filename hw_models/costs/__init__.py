"""What operations cost: the record of unit costs, one module a kind of operation, precision, chips and collectives."""

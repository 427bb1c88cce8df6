"""Tables of people: rows in, rows with answers out."""

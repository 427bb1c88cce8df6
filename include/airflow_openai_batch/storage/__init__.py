"""Places in object storage, and what lies there: streams, compression, sources."""

"""Tables as files: Parquet, CSV, JSON Lines, Excel."""

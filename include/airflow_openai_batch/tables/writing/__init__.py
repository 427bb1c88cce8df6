"""Tables as files: Parquet, CSV, JSON Lines, Excel."""

# Modules that other folders may import from.
__all__ = ["excel_cells", "formulas", "kept_files", "write_table"]

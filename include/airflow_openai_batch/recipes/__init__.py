"""What stands behind each example DAG, a folder a DAG."""

# Modules that other folders may import from.
__all__ = ["job_folder"]

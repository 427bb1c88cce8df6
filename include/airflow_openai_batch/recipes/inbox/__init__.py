"""Behind the DAG drain_request_files."""

"""Behind the DAG catalog_cd_images."""

"""What stands behind the example DAGs beside their wiring; in the wheel, so that a copied DAG runs."""

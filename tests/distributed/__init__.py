"""What docker-compose.yaml describes, without Docker: one process tree per container, killed and started again."""

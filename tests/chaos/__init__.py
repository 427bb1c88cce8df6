"""Many jobs on one real Airflow while its parts are killed and OpenAI misbehaves; then the books are read."""

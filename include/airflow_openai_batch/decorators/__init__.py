"""``@task.openai_batch``: a function that gives prompts or rows, as one task of a DAG."""

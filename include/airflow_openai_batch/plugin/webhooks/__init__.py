"""OpenAI's webhooks, which wake the tasks that wait for a batch."""

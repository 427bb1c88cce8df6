"""OpenAI's webhooks, which wake deferred tasks."""

"""What OpenAI is, and servers that speak its language: the client, batches, responses, models, prices, limits."""

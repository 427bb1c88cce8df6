"""What OpenAI is, and servers that speak its language: the client, batches, responses, models, prices, limits.

What comes from a server is read here once, into our own types, and refused in words where it is something else.
"""

# Modules that other folders may import from.
__all__ = [
    "account_limits",
    "answer_media",
    "answer_parts",
    "answer_sizes",
    "answer_vectors",
    "answer_videos",
    "async_client",
    "batch",
    "batch_durations",
    "client",
    "client_arguments",
    "client_errors",
    "connection_settings",
    "deployments",
    "endpoints",
    "error_codes",
    "flex",
    "lenient_json",
    "model_ends",
    "model_list",
    "model_table",
    "models",
    "own_prices",
    "paging",
    "plain_answers",
    "prices",
    "rate_limits",
    "rates",
    "realtime_client",
    "redirects",
    "responses",
    "result_line",
    "results_check",
    "server_objects",
    "tiers",
    "video_client",
]

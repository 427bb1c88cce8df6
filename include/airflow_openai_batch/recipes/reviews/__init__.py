"""Behind ``reviews_sentiment_nightly``."""

# Modules that other folders may import from.
__all__ = ["night_report", "night_start", "nights"]

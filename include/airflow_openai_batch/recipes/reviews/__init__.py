"""Behind the DAG reviews_sentiment_nightly."""

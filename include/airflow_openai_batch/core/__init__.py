"""The heart of the package: plain Python that knows neither Airflow nor the OpenAI client."""

"""The rules by the name of a server."""

from __future__ import annotations

from airflow_openai_batch.testing.servers.azure import AZURE
from airflow_openai_batch.testing.servers.generic import GENERIC
from airflow_openai_batch.testing.servers.groq import GROQ
from airflow_openai_batch.testing.servers.litellm import LITELLM
from airflow_openai_batch.testing.servers.rules import ServerRules
from airflow_openai_batch.testing.servers.together import TOGETHER

RULES = {each.name: each for each in (ServerRules(name="openai"), AZURE, GROQ, TOGETHER, LITELLM, GENERIC)}

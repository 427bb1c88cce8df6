"""What people are told of a run that failed or is late."""

from airflow_openai_batch.alerts.alerts import Alert, AlertOnFailure, alert_when_overdue, tell_overdue

__all__ = ["Alert", "AlertOnFailure", "alert_when_overdue", "tell_overdue"]

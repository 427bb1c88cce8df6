"""Behind the DAGs embed_documents and tag_transcripts."""

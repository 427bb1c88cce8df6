"""Behind ``embed_documents`` and ``tag_transcripts``."""

# Modules that other folders may import from.
__all__ = ["chunk_writing", "documents", "neighbours", "qdrant_points", "tag_writing", "transcripts"]

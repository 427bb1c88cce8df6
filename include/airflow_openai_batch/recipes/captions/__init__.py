"""Behind ``caption_video_frames``."""

# Modules that other folders may import from.
__all__ = ["caption_report", "video_frames"]

"""Behind ``caption_video_frames``."""

# Modules that other folders may import from.
__all__ = ["account_tier", "caption_report", "frame_rounds", "video_frames"]

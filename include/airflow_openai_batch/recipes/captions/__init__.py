"""Behind the DAG caption_video_frames."""

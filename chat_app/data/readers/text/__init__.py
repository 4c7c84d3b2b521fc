"""The reader of transcripts, and the role markers in them ("User:", ### Human:, <|im_start|>)."""

__all__ = ["role_markers", "subtitles", "transcript"]

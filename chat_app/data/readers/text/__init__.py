"""Readers of conversations in running text: transcripts with speaker names, role markers."""

__all__ = ["role_markers", "transcript"]

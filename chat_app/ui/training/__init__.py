"""The Teach tab: data that is brought, its report, starting a run, and watching runs.

The training itself is in `chat_app.training`.
"""

__all__ = ["start_run", "tab"]

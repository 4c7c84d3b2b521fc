"""Data quality: a one-pass check of conversations with statistics and findings, and repairs that a user can choose.

The check runs in bounded memory. It looks at texts and roles, and does not depend on files, tokenizers or the page.
"""

from chat_app.data.quality.checker import Checker
from chat_app.data.quality.issue_types import NOT_LOOKED_FOR, REPAIRS, Repair
from chat_app.data.quality.repairs import apply_repairs
from chat_app.data.quality.report import Check, Finding, Histogram, Spot

__all__ = ["NOT_LOOKED_FOR", "REPAIRS", "Check", "Checker", "Finding", "Histogram", "Repair", "Spot", "apply_repairs"]

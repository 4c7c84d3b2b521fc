"""What is in a set of conversations, what may be wrong with it, and repairs that a person can choose.

Goes through conversations once, in bounded memory. Knows texts and the two sides of a conversation; knows nothing of
files, tokens or pages.
"""

from chat_app.data.quality.checker import Checker
from chat_app.data.quality.issue_types import REPAIRS, Repair
from chat_app.data.quality.repairs import apply_repairs
from chat_app.data.quality.report import Check, Finding, Histogram, Spot

__all__ = ["REPAIRS", "Check", "Checker", "Finding", "Histogram", "Repair", "Spot", "apply_repairs"]

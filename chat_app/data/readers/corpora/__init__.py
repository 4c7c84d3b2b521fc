"""Well-known dialogue corpora, in their publishers' file formats and as rows of data sets on the Hub."""

__all__ = [
    "blended_skill_talk", "cornell", "dailydialog", "dialogpt", "empathetic_dialogues", "eos_lines", "multiwoz",
    "oasst", "parlai", "personachat", "squad",
]  # fmt: skip

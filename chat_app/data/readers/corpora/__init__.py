"""Well-known dialogue corpora, in their publishers' file formats and as rows of data sets on the Hub."""

__all__ = ["blended_skill_talk", "dailydialog", "dialogpt", "empathetic_dialogues", "personachat"]

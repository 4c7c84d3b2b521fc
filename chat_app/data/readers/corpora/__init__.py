"""The well-known dialogue corpora, in their original files and as rows of a table: what is special about each.

Knows what the publishers wrote; knows no settings of the page and no models.
"""

__all__ = ["blended_skill_talk", "dailydialog", "dialogpt", "empathetic_dialogues", "personachat"]

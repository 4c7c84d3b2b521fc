"""Readers of what chatbots with fixed answers are made of: intents, stories, categories; each becomes conversations."""

__all__ = ["aiml", "bot_framework", "chatterbot", "dialogflow", "intents", "pairs", "rasa"]

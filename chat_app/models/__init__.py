"""Model folders: found, validated, loaded, saved, merged, exported; their tokenizers, adapters and cards.

Nothing here generates text.
"""

__all__ = [
    "device", "export", "loading", "lora", "lora_files", "lora_merge", "model_card", "recommended", "resolver",
    "saving", "tokenizer", "validation", "weight_size",
]  # fmt: skip

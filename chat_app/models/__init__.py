"""Model folders: found, validated, loaded, saved, merged, exported; their tokenizers, adapters and cards.

Nothing here generates text.
"""

__all__ = [
    "bitsandbytes_internals", "building", "device", "export", "loading", "lora", "lora_files", "lora_merge",
    "model_card", "recommended", "resolver", "saving", "tokenizer", "transformers_internals", "validation",
    "weight_digest", "weight_import", "weight_size",
]  # fmt: skip

"""The interface of the package convmodel 0.3, implemented with this product: chat format `sep`, loss on all turns.

Code written for convmodel runs after `from chat_app import ...` in place of its own import.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chat_app.config.fields import AUTOMATIC
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.errors import DataError
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder

FORMAT = "sep"
MAX_NEW_TOKENS = 30


@dataclass(frozen=True)
class ConversationExample:
    """The turns of one conversation, oldest first.

    Raises:
        DataError: there are no turns, or they are not texts. It is a ValueError, too.
    """

    conversation: list[str]

    def __post_init__(self) -> None:
        if not self.conversation:
            raise DataError("The conversation is empty.", advice="Give at least one turn.")
        if isinstance(self.conversation, str) or not all(isinstance(turn, str) for turn in self.conversation):
            raise DataError("A conversation is a list of texts.")


@dataclass(frozen=True)
class ConversationModelOutput:
    """Replies to a context.

    Attributes:
        responses: the replies, as many as `num_return_sequences` asked for.
        context: the turns that were given, oldest first.
    """

    responses: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)


class ConversationTokenizer:
    """Encodes turns as token ids and token types in the chat format `sep`.

    Args:
        tokenizer: a tokenizer of transformers. If it has no separator token, its end-of-text token is used.
        window: the most tokens of a prompt; the oldest turns are dropped to fit.
    """

    def __init__(self, tokenizer: Any, window: int = 1024):
        self.hf_tokenizer = tokenizer
        self.encoder = Encoder(tokenizer, get_format(FORMAT), window)

    @classmethod
    def from_pretrained(cls, model_name_or_path: str) -> ConversationTokenizer:
        """Load the tokenizer of a model, by its name or folder.

        Raises:
            ModelError: there is no such model, or it has no tokenizer.
        """
        from chat_app.models.tokenizer import load_tokenizer, read_window

        return cls(load_tokenizer(model_name_or_path), read_window(model_name_or_path))

    @property
    def sep_token(self) -> str:
        """The separator token as text."""
        return self.encoder.special_tokens["sep"]

    @property
    def sep_token_id(self) -> int:
        """The id of the separator token."""
        return self.encoder.special_token_ids["sep"]

    def encode(self, text: str) -> list[int]:
        """The token ids of a text; special tokens spelled in it are encoded as ordinary text."""
        return self.encoder.text_ids(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, separators included."""
        return str(self.hf_tokenizer.decode(list(ids)))

    def save_pretrained(self, save_directory: str | Path) -> Any:
        """Save the tokenizer in a folder."""
        return self.hf_tokenizer.save_pretrained(save_directory)

    def __call__(self, texts: list[str], reserve: int = 0) -> dict[str, list[int]]:
        """The prompt for the next reply.

        Args:
            texts: the turns, oldest first; the user spoke last.
            reserve: how many tokens of the window to leave free for the reply.

        Returns:
            input_ids, token_type_ids and attention_mask: lists of equal length, without a batch dimension.

        Raises:
            DataError: there are no turns.
        """
        turns = ConversationExample(texts).conversation
        example = self.encoder.prompt(Conversation.from_turns(turns, last="user"), reserve)
        assert example.types is not None
        return {
            "input_ids": example.ids,
            "token_type_ids": example.types,
            "attention_mask": [1] * len(example.ids),
        }


class ConversationModel:
    """A GPT-2 model that replies in the chat format `sep`.

    Args:
        hf_tokenizer, hf_model: a tokenizer and a causal language model of transformers.
        device: "cpu", "cuda" or "mps"; default: the GPU if there is one.
    """

    def __init__(self, hf_tokenizer: Any, hf_model: Any, device: str | None = None):
        from chat_app.models.device import resolve_device
        from chat_app.models.loading import fit_embeddings

        self.device = resolve_device(device or AUTOMATIC)
        self.tokenizer = ConversationTokenizer(hf_tokenizer, int(hf_model.config.max_position_embeddings))
        self.hf_model = hf_model.to(self.device)
        fit_embeddings(self.hf_model, hf_tokenizer)

    @classmethod
    def from_pretrained(cls, model_name_or_path: str, device: str | None = None) -> ConversationModel:
        """Load a model by its name: starter, a run, a folder, or a name on the Hub.

        Raises:
            ModelError: it cannot be found or loaded.
        """
        from chat_app.models.loading import load_parts

        model, tokenizer, _, _ = load_parts(
            model_name_or_path, LoadConfig(precision="float32", device="cpu"), Paths.default()
        )
        return cls(tokenizer, model, device)

    @property
    def hf_tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self.tokenizer.hf_tokenizer

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Save the model and its tokenizer in a folder that `from_pretrained` can load."""
        from chat_app.models.saving import save_model_folder

        save_model_folder(Path(save_directory), self.hf_model, self.tokenizer.encoder)

    def generate(
        self, context: list[str], min_new_tokens: int | None = None, **settings: Any
    ) -> ConversationModelOutput:
        """Generate replies to a context.

        Args:
            context: the turns, oldest first; the user spoke last.
            min_new_tokens: the fewest tokens of a reply.
            settings: keyword arguments of `generate` of transformers, such as do_sample, top_p, top_k, max_new_tokens
                (default 30) and num_return_sequences.

        Raises:
            DataError: the context is empty.
        """
        import torch

        if "max_new_tokens" not in settings and "max_length" not in settings:
            settings["max_new_tokens"] = MAX_NEW_TOKENS
        window = self.tokenizer.encoder.window
        reserve = min(settings.get("max_new_tokens", MAX_NEW_TOKENS), window // 2)
        prompt = self.tokenizer(context, reserve)
        inputs = {name: torch.tensor([values], dtype=torch.long, device=self.device) for name, values in prompt.items()}
        sep = self.tokenizer.sep_token_id
        self.hf_model.eval()
        with torch.inference_mode():
            output = self.hf_model.generate(
                **inputs, min_new_tokens=min_new_tokens, eos_token_id=sep, pad_token_id=sep, **settings
            )
        replies = [self._until_sep(row) for row in output[:, len(prompt["input_ids"]) :].tolist()]
        return ConversationModelOutput(responses=replies, context=list(context))

    def _until_sep(self, ids: list[int]) -> str:
        sep = self.tokenizer.sep_token_id
        return self.tokenizer.decode(ids[: ids.index(sep)] if sep in ids else ids)

    def fit(
        self,
        train_iterator: Iterable[ConversationExample],
        valid_iterator: Iterable[ConversationExample],
        output_path: str | Path | None = None,
        save_best_model: bool = False,
        optimizer_params: Mapping[str, float] | None = None,
        warmup_steps: int = 0,
        use_amp: bool = False,
        epochs: int = 1,
        accumulation_steps: int = 1,
        show_progress_bar: bool = True,
        batch_size: int = 1,
        seed: int | None = None,
        **ignored: Any,
    ) -> None:
        """Fine-tune the model in place, with a loss on every turn of the conversations.

        Args:
            train_iterator, valid_iterator: the conversations for training and for validation.
            output_path: the folder to save the model in: with `save_best_model` the one with the lowest validation
                loss, else the last one.
            optimizer_params: {"lr": learning rate}; by default 1e-4.
            warmup_steps: optimizer steps in which the learning rate rises.
            use_amp: use mixed precision (bfloat16 or float16) where the device computes it fast.
            accumulation_steps: batches of an optimizer step.
            ignored: arguments of convmodel that have no effect here, such as num_workers.

        Raises:
            DataError: there is no example to train on, or `output_path` is missing.
            TrainingError: the training ended early, with the reason.
        """
        if save_best_model and output_path is None:
            raise DataError("save_best_model needs an output_path.")
        rows = self._rows(train_iterator)
        steps = max(1, math.ceil(len(rows) / (batch_size * accumulation_steps)) * epochs)
        config = TrainConfig(
            learn="all",
            epochs=epochs,
            batch_size=batch_size,
            accumulation=accumulation_steps,
            learning_rate=dict(optimizer_params or {}).get("lr", 1e-4),
            warmup=min(1.0, warmup_steps / steps),
            schedule="constant",
            patience=0,
            weight_decay=0.0,
            seed=seed or 0,
        )
        with tempfile.TemporaryDirectory() as folder:
            self._train(config, rows, self._rows(valid_iterator), use_amp, show_progress_bar, Path(folder) / "run")
            if output_path is not None and save_best_model:
                shutil.copytree(Path(folder) / "run" / "model", output_path, dirs_exist_ok=True)
            elif output_path is not None:
                self.save_pretrained(output_path)

    def _rows(self, examples: Iterable[ConversationExample]) -> list[Any]:
        conversations = (Conversation.from_turns(example.conversation) for example in examples)
        return [row for one in conversations for row in self.tokenizer.encoder.examples(one, "all")]

    def _train(
        self, config: TrainConfig, rows: list[Any], valid_rows: list[Any], use_amp: bool, show: bool, folder: Path
    ) -> None:
        from chat_app.models.device import resolve_precision
        from chat_app.runs.run import Run
        from chat_app.training.inputs import TrainingInputs
        from chat_app.training.trainer import train

        if not rows:
            raise DataError("There is nothing to learn.", advice="Give at least one example.")
        precision = resolve_precision(AUTOMATIC, self.device) if use_amp else "float32"
        run = Run.create(folder, config)
        inputs = TrainingInputs(self.tokenizer.encoder, rows, valid_rows, self.device, precision, None)
        with run.lock():
            train(run, config, inputs, self.hf_model)
        for line in run.metrics() if show else []:
            if "valid_loss" in line:
                shown = {name: line[name] for name in ("step", "epoch", "valid_loss", "valid_perplexity")}
                print(shown)

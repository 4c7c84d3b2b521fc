"""The models that a visitor may choose: lists for pickers, titles, and the check of a chosen name."""

from __future__ import annotations

import re

from chat_app.errors import ChatAppError, ModelError, RunError
from chat_app.inference.backend import ModelDescription, ReplyBackend
from chat_app.models.resolver import ModelFiles, available
from chat_app.runs.catalog import get_title
from chat_app.runs.run import Run, split_name
from chat_app.services import Services
from chat_app.ui.components import formatting

IN_USE = "the model in use"  # The name of a shared server's own model on the page, which hides its path.
RELOADING = "The model is being loaded again."
REMOTE = "the model of the engine"  # The name of the model that another server runs.
MAX_HINTS = 4


def title_run(run: Run) -> str:
    """Return the title of a run: the name that it was given, else its files and when it was created."""
    try:
        about = run.about()
    except RunError:
        return run.id
    if named := get_title(run):
        return named
    files = about.get("files")
    names = [str(file) for file in files] if isinstance(files, list) and files else [run.id]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    created = about.get("created")
    when = f", {formatting.format_moment(created)}" if isinstance(created, (int, float)) else ""
    return f"{names[0][:60]}{more}{when}"


def title_model(services: Services, model: ModelFiles | ModelDescription) -> str:
    """Return the title of a model."""
    if model.kind == "starter":
        return "Starter: comes with this app"
    if model.kind == "run":
        return title_trained_model(services, model.name)
    # Visitors of a shared server must not see its paths.
    return shorten_name(model.name) if services.rules.is_shared else model.name


def title_trained_model(services: Services, name: str) -> str:
    """Return the title of the model of a run or of one of its checkpoints."""
    run, step = split_name(name)
    at = f", at step {step:,}" if step is not None else ""
    return f"Taught: {title_run(Run(services.paths.runs / run))}{at}"


def shorten_name(name: str) -> str:
    """Return the last part of a path or of a name on the Hub."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1][:60]


def title_remote_model(remote: ReplyBackend) -> str:
    """Return the title of a model on another server."""
    return f"{shorten_name(remote.name) or 'The model'} on {remote.description.host}"


def list_chat_models(services: Services, visitor: str, chosen: str | None = None) -> list[tuple[str, str]]:
    """List (title, name) of all models that this visitor may chat with.

    Args:
        chosen: on a shared server, the visitor's own that answers now, which may be a checkpoint.
    """
    rows = list_own_models(services, visitor, chosen) if services.rules.is_shared else list_models(services, visitor)
    if services.remote is None:
        return rows
    name = IN_USE if services.rules.is_shared else REMOTE
    return [(title_remote_model(services.remote), name), *rows]


def get_answering_model(services: Services, chosen: str | None) -> str | None:
    """Return which of `list_chat_models` answers now."""
    if services.rules.is_shared:
        return chosen or IN_USE
    loaded = services.models.current
    if loaded is not None:
        return loaded.name
    return REMOTE if services.remote is not None else None


def list_models(services: Services, visitor: str) -> list[tuple[str, str]]:
    """List (title, name) of the local models that this visitor may use, the one in use among them."""
    rows = []
    for files in available(services.paths):
        if files.kind != "run" or services.may_see(Run(services.paths.runs / files.name), visitor):
            rows.append((title_model(services, files), files.name))
    loaded = services.models.current
    if loaded is not None and loaded.name not in {name for _, name in rows}:
        rows.append((title_model(services, loaded.description), IN_USE if services.rules.is_shared else loaded.name))
    return rows


def list_own_models(services: Services, visitor: str, chosen: str | None = None) -> list[tuple[str, str]]:
    """List (title, name) of what a visitor of a shared server may chat with: the server's model and the visitor's own.

    Args:
        chosen: the visitor's own that answers now, which may be a checkpoint.
    """
    loaded = services.models.current
    rows = [(title_model(services, loaded.description), IN_USE)] if loaded is not None else []
    rows += [(title_trained_model(services, run.id), run.id) for run in services.list_runs(visitor) if run.has_model]
    if chosen is not None and chosen not in {name for _, name in rows}:
        rows.append((title_trained_model(services, chosen), chosen))
    return rows


def check_allowed(services: Services, visitor: str, name: object) -> str:
    """Check that this visitor may use a model, and return its name.

    Raises:
        ModelError: no name, or, on a shared server, a model that is not offered to this visitor.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 1_000:
        raise ModelError("No model was chosen.", advice="Choose one from the list.")
    name = name.strip()
    if services.rules.is_shared and not _is_offered(services, visitor, name):
        raise ModelError("This model is not offered here.", advice="Choose one from the list.")
    loaded = services.models.current
    return str(loaded.name) if name == IN_USE and loaded is not None else name


def _is_offered(services: Services, visitor: str, name: str) -> bool:
    """Whether a shared server lets this visitor use a model: one of the list, or a checkpoint of the visitor's run."""
    run, step = split_name(name)
    offered = {row[1] for row in list_models(services, visitor)}
    return name in offered or (step is not None and run in offered)


def describe_model(loaded: ReplyBackend | None) -> str:
    """Describe the model in use in a few words."""
    if loaded is None:
        return "No model is loaded."
    model = loaded.description
    if model.problem:
        return model.problem
    if model.is_reloading:
        return RELOADING
    if not model.is_ready:
        return f"The server {model.host} answers here, and cannot be reached yet."
    window = f", remembers {model.window:,} tokens" if model.window else ""
    if model.host:
        return f"The server {model.host} answers with {model.name[:80]}{window}"
    return f"{formatting.format_parameters(model.parameters or 0)} parameters{window}"


def suggest_openings(services: Services, loaded: ReplyBackend | None) -> list[str]:
    """Suggest a few first messages; for a trained model, from its training data."""
    general = ["Hello!", "How are you?", "What do you like to do?"]
    if loaded is None:
        return []
    if loaded.description.kind != "run":
        return general
    try:
        from chat_app.training.pipeline import choose_sample_prompts

        run = Run(services.paths.runs / split_name(loaded.name)[0])
        found = [prompt.turns[0].text for prompt in choose_sample_prompts(run)]
    except (ChatAppError, OSError):
        return general
    return [text for text in found if len(text) <= 120][:MAX_HINTS] or general


def name_speaker(services: Services, loaded: ReplyBackend | None) -> str:
    """Return the name of the model above its replies."""
    if loaded is None:
        return "Model"
    kind = loaded.description.kind
    if kind == "starter":
        return "Starter"
    return "Your model" if kind == "run" else shorten_name(loaded.name) or "Model"

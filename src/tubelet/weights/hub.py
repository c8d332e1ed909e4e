"""Uploading a model to a hub: the files of `save_pretrained` and a card, in one commit, private if nobody objects."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from tubelet.nodes import Node
from tubelet.storage import write_text
from tubelet.weights.save import save_pretrained

CARD = "README.md"


def push(
    model: nn.Module,
    name: str,
    card: str,
    *,
    masking: Node | None = None,
    public: bool = False,
    keep_card: bool = True,
    dry_run: bool = False,
) -> tuple[str, dict[str, int]]:
    """Upload a model as `owner/name`, or as `owner/name@tag`: then the commit gets that tag.

    Args:
        card: text of the model card. A card that is there already stays, unless `keep_card` is False.
        public: everybody may read a new repository. An existing one keeps its visibility, and must be told to be public
            if it is.
        dry_run: nothing is sent or asked.

    Returns the address of the commit (in a dry run, of the repository), and the size in bytes of each file. Raises
    ValueError if the name is none, if nobody is logged in, or if the hub refuses.
    """
    repository, tag = parts_of(name)
    with TemporaryDirectory() as folder:
        save_pretrained(model, folder, masking=masking)
        write_text(Path(folder) / CARD, card)
        sizes = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
        if dry_run:
            from huggingface_hub import constants

            return f"{constants.ENDPOINT}/{repository}", sizes
        try:
            return _upload(Path(folder), repository, tag, public, keep_card), sizes
        except ValueError:
            raise
        except Exception as error:  # the hub's client raises a dozen types of errors with this meaning
            raise ValueError(f"{repository} could not be pushed: {_reason(error)}") from error


def _upload(folder: Path, repository: str, tag: str | None, public: bool, keep_card: bool) -> str:
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if get_token() is None:
        raise ValueError(
            "nobody is logged in to the hub: run `hf auth login`, or set HF_TOKEN to a token that may write"
        )
    api: Any = HfApi()
    try:
        there = api.model_info(repository)
    except RepositoryNotFoundError:
        there = None
        api.create_repo(repository, private=not public)
    if there is not None and not there.private and not public:
        raise ValueError(f"{repository} exists and is public: pass --public if everybody may read the new version, too")
    files = [] if there is None else [file.rfilename for file in there.siblings or []]
    if tag is not None and there is not None and tag in {each.name for each in api.list_repo_refs(repository).tags}:
        raise ValueError(f"{repository} has a tag {tag} already: choose another")
    ignore = [CARD] if keep_card and CARD in files else None
    commit = api.upload_folder(
        repo_id=repository, folder_path=folder, ignore_patterns=ignore, commit_message=f"tubelet: {tag or 'weights'}"
    )
    if tag is not None:
        api.create_tag(repository, tag=tag, revision=commit.oid)
    return str(commit.commit_url)


def parts_of(name: str) -> tuple[str, str | None]:
    """`owner/name@tag` -> (owner/name, tag), `owner/name` -> (owner/name, None). Raises ValueError for other names."""
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?", name)
    if found is None:
        raise ValueError(f"'{name}' is no name of a repository: owner/name, or owner/name@tag")
    return found[1], found[2]


def _reason(error: Exception) -> str:
    """The first line that says something: the client's messages begin with an address and a number."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__

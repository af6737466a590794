"""The compressors a floor can steer: those that deliver any ratio, as text or as vectors."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from laconic.backbone import Backbone
from laconic.errors import LaconicError
from laconic.methods.baselines.bm25 import BM25
from laconic.methods.baselines.embedding import Embedding
from laconic.methods.pruning.classifier import Classifier, load_classifier
from laconic.methods.pruning.perplexity import Contrastive, SelfInformation
from laconic.methods.registry import load_method
from laconic.methods.roles import Compressor

#: word by word, and by segment
PRUNERS = {"classifier": Classifier, "selfinfo": SelfInformation, "contrastive": Contrastive}
#: those whose scorer is the backbone
SCORED = ("selfinfo", "contrastive")
SELECTORS = {"bm25": BM25, "embedding": Embedding}
STEERABLE = (*PRUNERS, *SELECTORS, "ram")
DEFAULT = CLASSIFIER = "classifier"
#: those that shorten for a question alone
ASKING = ("contrastive", *SELECTORS, "ram")


def load_steerable(
    name: str,
    backbone: Backbone,
    *,
    protect: Collection[str] = (),
    classifier: str | os.PathLike[str] | None = None,
) -> Compressor:
    """A compressor by name.

    Args:
        backbone: whose tokens are counted, and the scorer of those that need one.
        protect: kinds of words that are never cut (``pruning.protect``).
        classifier: a saved word classifier, or a local checkpoint of LLMLingua-2's kind; None: what is shipped.

    Raises:
        LaconicError: it is none that delivers any ratio, or has no words to protect.
    """
    check_steerable(name, protect, classifier)
    if name == "classifier":
        folder = Path(classifier) if classifier is not None else None
        return Classifier(backbone, protect, load_classifier(folder, backbone.device))
    if name in PRUNERS:
        return PRUNERS[name](backbone, protect)
    return load_method("ram", backbone).compressor if name == "ram" else SELECTORS[name](backbone)


def check_steerable(name: str, protect: Collection[str] = (), classifier: str | os.PathLike[str] | None = None) -> None:
    """Raise ``LaconicError`` for what ``load_steerable`` cannot load: no compressor that delivers any ratio, say."""
    if name not in STEERABLE:
        raise LaconicError(f"{name!r} is no method that delivers any ratio.", f"Choose from: {', '.join(STEERABLE)}.")
    if classifier is not None and name != "classifier":
        raise LaconicError(f"{name} has no classifier.", "Leave --classifier out.")
    if protect and name not in PRUNERS:
        raise LaconicError(f"{name} keeps whole segments and protects no words.", f"Choose {', '.join(PRUNERS)}.")


def compressor_digest(name: str, compressor: Compressor) -> str:
    """What a compressor is, for labels and predictors: its name, a digest of what makes it, and what it protects."""
    protect = ",".join(sorted(set(getattr(compressor, "protect", ()))))
    return " ".join(part for part in (unprotecting(name, compressor), protect) if part)


def unprotecting(name: str, compressor: Compressor) -> str:
    """What a compressor is whatever it protects, which takes it no longer."""
    made = (getattr(compressor, what, "") for what in ("version", "settings"))
    return " ".join(part for part in (name, *made) if part)

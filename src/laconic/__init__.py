"""Laconic: language models made cheap on long inputs and on long reasoning.

from laconic import load_backbone, load_method

backbone = load_backbone()
ram = load_method("ram", backbone)
context = ram.compressor.compress(open("book.txt").read(), "Who is the captain?", budget=2000)
print(ram.reader.answer(context, "Who is the captain?").text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.backbone import Backbone, load_backbone
    from laconic.methods.registry import load_method, load_thinker

__version__ = "0.1.0"
__all__ = ["Backbone", "__version__", "load_backbone", "load_method", "load_thinker"]

_HOMES = {
    "Backbone": "laconic.backbone",
    "load_backbone": "laconic.backbone",
    "load_method": "laconic.methods.registry",
    "load_thinker": "laconic.methods.registry",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `laconic --help` should not
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'laconic' has no attribute {name!r}")

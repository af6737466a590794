"""Words by how little the backbone expects them: Selective Context (arXiv 2310.06201) and LongLLMLingua (2310.06839).

``SelfInformation`` keeps what is hard to predict from the text before it, and so carries information of its own.
``Contrastive`` keeps what a question makes easier to predict: the difference of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from laconic.backbone import Backbone
from laconic.core.segments import Range, require_question
from laconic.errors import QuestionError
from laconic.methods.pruning.words import WordPruner, mean_by_word

#: tokens of a text that are scored in one row, and tokens before them that the row begins with
PIECE, BEFORE = 448, 64
ROWS = 8
#: tokens whose scores over the vocabulary are held together
TOGETHER = 512


class SelfInformation(WordPruner):
    """A word's score is the mean of ``-log p(token | text before)`` over its tokens, in nats."""

    def scores(self, text: str, words: Sequence[Range], query: str | None) -> list[float]:
        ids, offsets = _tokens(self.backbone, text)
        return mean_by_word(surprise(self.backbone, ids).tolist(), offsets, words)


class Contrastive(WordPruner):
    """A word's score is how much likelier, in nats, the question before the text makes its tokens on average.

    Raises (besides ``WordPruner.compress``):
        QuestionError: there is no question, or it leaves no room in the window.
    """

    query_aware = True

    def scores(self, text: str, words: Sequence[Range], query: str | None) -> list[float]:
        question = self.backbone.token_ids(require_question(query) + "\n")
        if len(question) + 2 * BEFORE > self.backbone.window:  # pieces may be shorter, down to 64 tokens
            raise QuestionError(
                f"A question of {len(question)} tokens leaves no room in the window of {self.backbone.window}.",
                "Shorten the question.",
            )
        ids, offsets = _tokens(self.backbone, text)
        gained = surprise(self.backbone, ids) - surprise(self.backbone, ids, question)
        return mean_by_word(gained.tolist(), offsets, words)


@torch.inference_mode()
def surprise(backbone: Backbone, ids: Sequence[int], prefix: Sequence[int] = ()) -> Tensor:
    """``-log p`` of each token of a text behind the prefix and up to 64 tokens before it, float32 ``[T]`` on the CPU.

    Of a text's first token without a prefix, which nothing predicts, it is the mean of the others.
    """
    piece = min(PIECE, max(1, backbone.window - BEFORE - len(prefix)))
    starts = list(range(0, len(ids), piece))
    found = torch.empty(len(ids))
    for first in range(0, len(starts), ROWS):
        some = starts[first : first + ROWS]
        rows = [[*prefix, *ids[max(0, start - BEFORE) : start + piece]] for start in some]
        longest = max(map(len, rows))
        fed = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=backbone.device)
        hidden = backbone.base(fed, use_cache=False).last_hidden_state  # causal: padding behind changes nothing
        for row, start in enumerate(some):
            length = min(piece, len(ids) - start)
            skipped = len(rows[row]) - length
            told = hidden[row, max(skipped - 1, 0) : len(rows[row]) - 1]
            wanted = fed[row, max(skipped, 1) : len(rows[row])]
            found[start + length - len(wanted) : start + length] = _losses(backbone, told, wanted).cpu()
    if not prefix:
        found[0] = found[1:].mean() if len(ids) > 1 else 0.0
    return found


def _losses(backbone: Backbone, hidden: Tensor, wanted: Tensor) -> Tensor:
    head = backbone.model.get_output_embeddings()
    parts = zip(hidden.split(TOGETHER), wanted.split(TOGETHER), strict=True)
    return torch.cat([functional.cross_entropy(head(some).float(), ids, reduction="none") for some, ids in parts])


def _tokens(backbone: Backbone, text: str) -> tuple[list[int], list[Range]]:
    encoded = backbone.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return encoded["input_ids"], encoded["offset_mapping"]

"""RAM, "Read As Human" (arXiv 2602.01840): read the relevant parts of a long context closely, skim the rest.

A document is cut into segments, encoded in parallel by the first K layers of the backbone, and scored against the
question. The best segments enter the decoder word for word, every other one as a single query-weighted vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from laconic.backbone import Backbone
from laconic.core.lexical import LexicalIndex
from laconic.core.lora import add_lora
from laconic.core.method import TrainedMethod
from laconic.core.results import Compressed, Stopwatch
from laconic.core.segments import SegmentedText, require_question, resolve_budget, segment, spans_of
from laconic.core.sharing import shared_twin
from laconic.errors import QuestionError
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.encoder import SegmentEncoder, States
from laconic.methods.ram.memory import Plan, assemble, check_affordable, plan_exact, plan_paper, vectors_within
from laconic.methods.ram.relevance import Relevance
from laconic.methods.ram.skim import Align, skim_vectors

NAME = "ram"


@dataclass
class Reading:
    """A document RAM has cut and (in bi-encoder mode) encoded; it serves any number of questions."""

    segmented: SegmentedText
    states: States | None
    lexical: LexicalIndex | None


class RAM(TrainedMethod):
    """RAM on a backbone.

    Attributes:
        decoder: the reader's model: a twin of the backbone's with LoRA, or the backbone's own (``decoder_rank=0``).
    """

    name = NAME
    options = RAMConfig
    query_aware = True
    config: RAMConfig

    def __init__(self, backbone: Backbone, config: RAMConfig | None = None) -> None:
        super().__init__()
        self.config = config or RAMConfig()
        self.backbone = backbone
        self.encoder = SegmentEncoder(backbone, self.config)
        self.relevance = Relevance(backbone.width, self.config)
        self.align = Align(backbone, self.config)
        self.decoder: PreTrainedModel = backbone.model
        if self.config.decoder_rank:
            self.decoder = shared_twin(backbone.model)
            add_lora(self.decoder, self.config.decoder_rank, alpha=2 * self.config.decoder_rank)
        self.to(backbone.device)
        self._last: tuple[str, Reading] | None = None

    def adapted(self) -> list[nn.Module]:
        return [self.encoder.body, self.decoder]

    def train(self, mode: bool = True) -> RAM:
        """As for any module; the document read last is forgotten, since its states are those of the weights then."""
        self._last = None
        return super().train(mode)

    # --- reading -----------------------------------------------------------------------------------------------

    def read(self, document: str, watch: Stopwatch | None = None) -> Reading:
        """Cut a document into segments, encode them (unless each question needs its own pass) and index its words.

        Raises:
            DocumentError: the document is empty.
        """
        watch = watch or Stopwatch(self.backbone.device)
        with watch("tokenize"):
            segmented = segment(self.backbone.tokenizer, document, self.config.segment_tokens)
        return self._encoded(segmented, watch)

    def _encoded(self, segmented: SegmentedText, watch: Stopwatch) -> Reading:
        with watch("encode"):
            states = self.encode(segmented) if self.config.encode == "bi" else None
        with watch("score"):
            lexical = LexicalIndex(segmented.segment_texts()) if self.config.lexical else None
        return Reading(segmented, states, lexical)

    def encode(self, segmented: SegmentedText, query: Sequence[int] | None = None) -> States:
        return self.encoder.segments(segmented.ids, self.config.segment_tokens, self.config.row_segments, query)

    def score(self, reading: Reading, queries: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, States]:
        """Relevance [Q, S] of every segment to every query, the pooled queries [Q, D], and the segments' states.

        In cross mode the states depend on the query, so only one query at a time is taken.
        """
        ids = [self.backbone.token_ids(query) for query in queries]
        query_states = self.encoder(ids)
        if reading.states is not None:
            states = reading.states
        else:
            assert len(queries) == 1, "cross encoding takes one query at a time"
            states = self.encode(reading.segmented, ids[0])
        lexical = self._lexical_scores(reading.lexical, queries) if reading.lexical is not None else None
        return self.relevance(query_states, states, lexical), query_states.mean(), states

    def _lexical_scores(self, index: LexicalIndex, queries: Sequence[str]) -> torch.Tensor:
        scores = torch.stack([torch.from_numpy(index.scores(query)) for query in queries])
        return (scores / scores.amax(1, keepdim=True).clamp(min=1e-6)).to(self.backbone.device)

    # --- compressing -------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        """Compress a document for one question into decoder embeddings.

        Neighbouring segments share skim vectors where one each would take more than ``skim_share`` of the tokens; a
        note says so. A ``ratio`` so strong that not even one token per segment would be left is an error; a
        ``budget`` is a ceiling that any document meets.
        The document read last is remembered, so further questions about it cost no encoding.

        Raises:
            DocumentError, QuestionError: empty input, or a question longer than the window.
            BudgetError: the ratio or budget cannot be delivered.
        """
        question = require_question(query)
        if self.backbone.count_tokens(question) > self.backbone.window // 2:
            raise QuestionError("The question is longer than half the model's window.", "Ask a shorter question.")
        watch = Stopwatch(self.backbone.device)
        reading = self._last[1] if self._last is not None and self._last[0] == context else None
        if reading is not None:
            segmented = reading.segmented
        else:
            with watch("tokenize"):
                segmented = segment(self.backbone.tokenizer, context, self.config.segment_tokens)
        allowed, requested = resolve_budget(len(segmented.ids), ratio, budget)
        if ratio is not None and self.config.budget_mode == "exact":
            check_affordable(len(segmented), len(segmented.ids), allowed)  # before the work, not after it
        if reading is None:
            reading = self._encoded(segmented, watch)
            self._last = (context, reading)
        with watch("score"):
            scores, pooled, states = self.score(reading, [question])
        ranked = scores[0].tolist()
        vectors = len(segmented)
        if self.config.budget_mode == "paper":
            plan = plan_paper(ranked, segmented.lengths, requested, self.config.segment_tokens)
        else:
            vectors = vectors_within(len(segmented), allowed, self.config.skim_share)
            plan = plan_exact(ranked, segmented.lengths, allowed, vectors)
        with watch("assemble"):
            embeddings = self.memory(segmented, plan, states, pooled[0], scores[0])
        shared = vectors < len(segmented) and plan.groups
        notes = [f"neighbouring segments share skim vectors ({vectors} for {len(segmented)})"] if shared else []
        return Compressed(
            document_tokens=len(segmented.ids),
            context_tokens=len(embeddings),
            requested_ratio=requested,
            embeddings=embeddings,
            evidence=spans_of(segmented, plan.kept, ranked),
            seconds=watch.seconds,
            notes=notes,
        )

    def memory(
        self, segmented: SegmentedText, plan: Plan, states: States, query: torch.Tensor, scores: torch.Tensor
    ) -> torch.Tensor:
        """The hybrid memory [M, D'] of a plan.

        Args:
            query: pooled query r_q [D], which weights the tokens inside a skim vector.
            scores: relevance [S], which weights the segments inside a shared vector.
        """
        embed = self.decoder.get_input_embeddings()
        device = self.backbone.device
        ids = torch.tensor(segmented.ids, device=device)
        kept_rows = [embed(ids[slice(*segmented.token_spans[i])]) for i in plan.kept]
        skimmed = [index for group in plan.groups for index in group]
        if not skimmed:
            return assemble(plan, kept_rows, embed(ids[:0]))
        picked = torch.tensor(skimmed, device=device)
        temperature = self.config.skim_temperature
        vectors = torch.cat([skim_vectors(piece, query, temperature) for piece in states.pieces(picked)])
        if any(len(group) > 1 for group in plan.groups):
            vectors = _shared(vectors, plan.groups, scores[picked] / self.config.contrastive_temperature)
        return assemble(plan, kept_rows, self.align(vectors).to(embed.weight.dtype))


def _shared(vectors: torch.Tensor, groups: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
    """One vector per group [G, D]: the group's skim vectors weighted by the softmax of their relevance."""
    pieces, start = [], 0
    for group in groups:
        stop = start + len(group)
        weights = logits[start:stop].float().softmax(0)
        pieces.append(weights @ vectors[start:stop])
        start = stop
    return torch.stack(pieces)

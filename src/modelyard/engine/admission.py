"""From requests to sequences: prompts are read, and grammars compiled, before anything is computed.

What takes long is made on the thread of grammars: a request whose sampler or grammar is not ready waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelyard.engine.answer import Answer
from modelyard.engine.dialogue import Dialogue, text_grammar
from modelyard.engine.draft import DraftedGuesses
from modelyard.engine.guidance import Constraint, GrammarCompiler
from modelyard.engine.llama import DrySampler, Model
from modelyard.engine.load import Resident
from modelyard.engine.logprobs import LogprobTrail
from modelyard.engine.lookup import Prediction, PromptLookup
from modelyard.engine.messages import Chat, Compiled, Prompt, Sampling, SequenceId, Submit, Text
from modelyard.engine.prompt import ReadPrompt
from modelyard.engine.sampler import ConstrainedSampler, Sampler, make_sampler
from modelyard.engine.sequence import Sequence
from modelyard.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that can be computed.

    Attributes:
        request: as it came.
        prompt: as it was read.
        echo: text that its answer begins with.
    """

    request: Submit
    prompt: ReadPrompt
    answer: Answer
    sampler: Sampler
    sequence: Sequence
    echo: str


@dataclass(slots=True)
class _Unready:
    """A request that is read, and what is made for it beside the engine's thread."""

    request: Submit
    prompt: ReadPrompt
    dry: DrySampler | None = None


class Admission:
    """Admits the requests of one engine. All methods run on the engine's thread.

    Args:
        resident: the model.
        looks_up: whether answers are guessed from what was said before.
        send: hands a message to the engine; called on any thread.
    """

    def __init__(self, resident: Resident, *, looks_up: bool, send: Callable[[Compiled], None]) -> None:
        self._model: Model = resident.model
        self._length = resident.context.length
        self._prompts, self._defaults = resident.prompts, resident.sampling
        self._dialogue: Dialogue | None = resident.dialogue
        self._drafts = resident.drafter is not None
        self._looks_up = looks_up
        self._send = send
        self._arrivals = 0
        self._unready: dict[SequenceId, _Unready] = {}
        self.grammars = GrammarCompiler(resident.model.vocabulary)

    @property
    def unready(self) -> Iterator[SequenceId]:
        """Requests whose grammars or samplers are being made."""
        return iter(tuple(self._unready))

    def submit(self, request: Submit) -> Admitted | None:
        """Admit a request; None where its grammar is to be compiled before, of which ``compiled`` hears.

        Raises:
            ModelyardError: it is refused.
        """
        prompt = self._prompts.read(request.prompt)
        self._check_bias(request.sampling)
        if isinstance(request.prompt, Chat) and self._dialogue is not None:
            grammar = self._dialogue.grammar(request, request.prompt, prompt.reading)
        else:
            grammar = text_grammar(request)
        sampling = request.sampling.over(self._defaults)
        if grammar is None and not sampling.dry_multiplier:
            return self._admitted(_Unready(request, prompt), None)
        unready = self._unready[request.sequence] = _Unready(request, prompt)

        def make() -> str | None:
            if sampling.dry_multiplier:
                unready.dry = DrySampler(sampling, self._model, self._length)
            return None if grammar is None else grammar()

        self.grammars.compile(make, lambda done: self._send(Compiled(request.sequence, done)))
        return None

    def compiled(self, message: Compiled) -> Admitted | None:
        """Admit a request whose grammar is ready; None where nobody wants it any more.

        Raises:
            InvalidRequest: its grammar cannot be enforced.
        """
        unready = self._unready.pop(message.sequence, None)
        return None if unready is None else self._admitted(unready, message.constraint.result())

    def forget(self, sequence: SequenceId) -> bool:
        """Give up a request whose grammar is not ready; whether there was one."""
        return self._unready.pop(sequence, None) is not None

    def next_arrival(self) -> int:
        """The place of the next sequence in the order of arrival."""
        self._arrivals += 1
        return self._arrivals - 1

    def _admitted(self, unready: _Unready, constraint: Constraint | None) -> Admitted:
        request, prompt = unready.request, unready.prompt
        room = self._length - len(prompt.tokens)
        is_read = prompt.reading is not None and self._dialogue is not None
        answer = Answer(
            most_tokens=room if request.max_tokens is None else min(request.max_tokens, room),
            end_tokens=self._model.end_tokens,
            stops=request.stop,
            spelt=self._dialogue.spelt if is_read and self._dialogue is not None else frozenset(),
            trail=None if request.logprobs is None else LogprobTrail(request.logprobs, self._model.spelt_piece),
        )
        tokens = [token for token in prompt.tokens if token >= 0] if prompt.pictures else prompt.tokens
        sampler: Sampler = make_sampler(
            request.sampling.over(self._defaults),
            self._model,
            self._length,
            tokens,
            ban_end=request.ignore_eos,
            dry=unready.dry,
        )
        if constraint is not None:
            sampler = ConstrainedSampler(sampler, constraint)
        sequence = Sequence(request.sequence, self.next_arrival(), prompt.tokens, request.priority, prompt.pictures)
        # What guesses reads tokens, and would guess placeholders of pictures.
        if not prompt.pictures and self._model.can_trim and sampler.can_verify:
            lookup = PromptLookup() if self._looks_up else None
            sequence.guesser = DraftedGuesses(lookup) if self._drafts else lookup
            if request.prediction:
                predicted = self._model.tokenize_plain(request.prediction.encode())
                sequence.guesser = Prediction(predicted, len(prompt.tokens), sequence.guesser or PromptLookup())
        echo = self._echo(request.prompt, tokens) if request.echoes else ""
        return Admitted(request, prompt, answer, sampler, sequence, echo)

    def _echo(self, prompt: Prompt, tokens: list[int]) -> str:
        if isinstance(prompt, Text):
            return prompt.text
        return b"".join(map(self._model.piece, tokens)).decode("utf-8", "replace")

    def _check_bias(self, sampling: Sampling) -> None:
        for token in sampling.logit_bias or ():
            if not 0 <= token < self._model.vocab_size:
                raise InvalidRequest(
                    f"logit_bias names token {token}, but this model's vocabulary has ids 0 to "
                    f"{self._model.vocab_size - 1}.",
                    "logit_bias",
                )

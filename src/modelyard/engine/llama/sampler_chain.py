"""Sampler chains of llama.cpp."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama.context import Context
from modelyard.engine.llama.library import lib
from modelyard.engine.llama.model import Model
from modelyard.protocol.prompts import SAMPLER_ORDER, SamplerName, Sampling

# llama.cpp replaces this seed by a random one. Source: llama.h, LLAMA_DEFAULT_SEED.
_RANDOM_SEED = 0xFFFFFFFF

# Below this temperature, logits divided by it leave the range of 32-bit floats; the draw is certain long before.
_GREEDY_BELOW = 1e-5

# The defaults of llama.cpp. Source: common/common.h, ``common_params_sampling``; 100 is the M of the paper on Mirostat.
_XTC_THRESHOLD = 0.1
_MIROSTAT_TAU, _MIROSTAT_ETA, _MIROSTAT_M = 5.0, 0.1, 100

# llama_token_data. Source: llama.h.
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def is_greedy(sampling: Sampling) -> bool:
    """Whether the most likely token is taken, without a draw."""
    return (sampling.temperature or 0.0) < _GREEDY_BELOW


def active_samplers(sampling: Sampling) -> tuple[SamplerName, ...]:
    """Return the samplers of a request in its order, without those that its parameters turn off."""
    order = SAMPLER_ORDER if sampling.samplers is None else sampling.samplers
    return tuple(name for name in order if _is_active(name, sampling))


def _is_active(name: SamplerName, sampling: Sampling) -> bool:
    match name:
        case "penalties":
            return sampling.penalty_window != 0 and bool(
                sampling.repetition_penalty not in (None, 1.0)
                or sampling.frequency_penalty
                or sampling.presence_penalty
            )
        case "dry":
            return bool(sampling.dry_multiplier)
        case "top_n_sigma":
            return sampling.top_n_sigma is not None and sampling.top_n_sigma > 0
        case "top_k":
            return bool(sampling.top_k)
        case "typ_p":
            return bool(sampling.typical_p and sampling.typical_p < 1)
        case "top_p":
            return sampling.top_p is not None and sampling.top_p < 1
        case "min_p":
            return bool(sampling.min_p)
        case "xtc":
            return bool(sampling.xtc_probability)
        case "temperature":
            return True


def _seed_of(sampling: Sampling) -> int:
    return _RANDOM_SEED if sampling.seed is None else sampling.seed % _RANDOM_SEED


class DrySampler:
    """A DRY sampler, which keeps one answer from repeating its text, for a chain that is yet to be made.

    Making it takes 10 ms to some seconds, depending on the vocabulary and the breakers; it may be made on any thread.
    """

    __slots__ = ("__weakref__", "_free", "_pointer")

    def __init__(self, sampling: Sampling, model: Model, context: int) -> None:
        self._pointer = model.dry_sampler(sampling, context)
        self._free = weakref.finalize(self, lib.llama_sampler_free, self._pointer)
        self._free.atexit = False

    def hand_over(self) -> Any:
        """Return the sampler in C, which its chain must free."""
        self._free.detach()
        return self._pointer


class SamplerChain:
    """A sampler chain in C, with the state of one sequence: its token counts for penalties, and its random numbers.

    Order: bias, then the samplers of ``sampling``, by default in llama.cpp's order, and the draw. Mirostat draws in
    place of everything but penalties, DRY and temperature. Repetition and DRY count the prompt and the answer, presence
    and frequency count the answer, as OpenAI defines them.

    It holds nothing of weights or context: it may leave its engine with a suspended sequence, and is freed with its
    last reference. Made with the ``answer`` that another chain has sampled, it continues as that one would; only what
    Mirostat has learnt, and the random numbers of XTC, begin again.
    """

    __slots__ = ("__weakref__", "_chain", "_dist", "_free", "_is_greedy", "can_verify")

    def __init__(
        self,
        sampling: Sampling,
        bias: Mapping[int, float],
        model: Model,
        context: int,
        prompt: Iterable[int],
        dry: DrySampler | None = None,
        answer: Sequence[int] = (),
    ) -> None:
        self._is_greedy = is_greedy(sampling)
        self.can_verify = sampling.seed is None and not self._is_greedy
        params = lib.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain = lib.llama_sampler_chain_init(params)
        self._free = weakref.finalize(self, lib.llama_sampler_free, self._chain)
        self._free.atexit = False
        # The member of the chain that draws; None where that is another than llama.cpp's usual one.
        self._dist: Any = None
        if bias:
            entries = (lib.llama_logit_bias * len(bias))(*(lib.llama_logit_bias(t, b) for t, b in bias.items()))
            self._add(lib.llama_sampler_init_logit_bias(model.vocab_size, len(bias), entries))
        if self._is_greedy:
            self._add_samplers(sampling, ("penalties", "dry"), model, context, prompt, dry)
            self._add(lib.llama_sampler_init_greedy())
        else:
            shaping = ("penalties", "dry", "temperature") if sampling.mirostat else SAMPLER_ORDER
            self._add_samplers(sampling, shaping, model, context, prompt, dry)
            self._add_draw(sampling, model, 0 if sampling.seed is None else len(answer))
        for token in answer:
            lib.llama_sampler_accept(self._chain, token)

    def _add_samplers(
        self,
        sampling: Sampling,
        allowed: Sequence[str],
        model: Model,
        context: int,
        prompt: Iterable[int],
        dry: DrySampler | None,
    ) -> None:
        """Add those of the request's samplers that are ``allowed``, in the order of the request."""
        for name in active_samplers(sampling):
            if name not in allowed:
                continue
            if name == "penalties":
                self._add_penalties(sampling, model, context, prompt)
            elif name == "dry":
                self._add_dry(dry, prompt)
            else:
                self._add_shaping(name, sampling)

    def _add_penalties(self, sampling: Sampling, model: Model, context: int, prompt: Iterable[int]) -> None:
        window = context if sampling.penalty_window is None or sampling.penalty_window < 0 else sampling.penalty_window
        if sampling.repetition_penalty not in (None, 1.0):
            penalty = lib.llama_sampler_init_penalties(model.vocab_size, window, sampling.repetition_penalty, 0.0, 0.0)
            for token in prompt:
                lib.llama_sampler_accept(penalty, token)
            self._add(penalty)
        if sampling.frequency_penalty or sampling.presence_penalty:
            frequency, presence = sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0
            self._add(lib.llama_sampler_init_penalties(model.vocab_size, window, 1.0, frequency, presence))

    def _add_dry(self, dry: DrySampler | None, prompt: Iterable[int]) -> None:
        if dry is None:
            return
        repetition = dry.hand_over()
        for token in prompt:
            lib.llama_sampler_accept(repetition, token)
        self._add(repetition)

    def _add_shaping(self, name: str, sampling: Sampling) -> None:
        """Add a sampler that narrows or reshapes the distribution."""
        match name:
            case "top_n_sigma":
                self._add(lib.llama_sampler_init_top_n_sigma(sampling.top_n_sigma))
            case "top_k":
                self._add(lib.llama_sampler_init_top_k(sampling.top_k))
            case "typ_p":
                self._add(lib.llama_sampler_init_typical(sampling.typical_p, 1))
            case "top_p":
                self._add(lib.llama_sampler_init_top_p(sampling.top_p, 1))
            case "min_p":
                self._add(lib.llama_sampler_init_min_p(sampling.min_p, 1))
            case "xtc":
                threshold = _XTC_THRESHOLD if sampling.xtc_threshold is None else sampling.xtc_threshold
                self._add(lib.llama_sampler_init_xtc(sampling.xtc_probability, threshold, 1, _seed_of(sampling)))
            case "temperature" if sampling.dynatemp_range:
                exponent = 1.0 if sampling.dynatemp_exponent is None else sampling.dynatemp_exponent
                reach = sampling.dynatemp_range
                self._add(lib.llama_sampler_init_temp_ext(sampling.temperature, reach, exponent))
            case "temperature":
                self._add(lib.llama_sampler_init_temp(sampling.temperature))

    def _add_draw(self, sampling: Sampling, model: Model, draws: int) -> None:
        """Add the sampler that draws a token; ``draws`` were already made with the seed."""
        seed = _seed_of(sampling)
        if sampling.mirostat:
            tau = _MIROSTAT_TAU if sampling.mirostat_tau is None else sampling.mirostat_tau
            eta = _MIROSTAT_ETA if sampling.mirostat_eta is None else sampling.mirostat_eta
            if sampling.mirostat == 1:
                self._add(lib.llama_sampler_init_mirostat(model.vocab_size, seed, tau, eta, _MIROSTAT_M))
            else:
                self._add(lib.llama_sampler_init_mirostat_v2(seed, tau, eta))
            return
        dist = self._dist = lib.llama_sampler_init_dist(seed)
        # Each sampling consumes one random number, also for a single candidate.
        # Source: llama.cpp, src/llama-sampler.cpp, llama_sampler_dist_apply.
        candidate = (lib.llama_token_data * 1)()
        candidates = lib.llama_token_data_array(data=candidate, size=1)
        for _ in range(draws):
            lib.llama_sampler_apply(dist, ctypes.byref(candidates))
        self._add(dist)

    def _add(self, sampler: Any) -> None:
        lib.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, context: Context, index: int, _logits: npt.NDArray[np.float32]) -> int:
        """Sample from the logits of the batch's token at ``index``, and count the sampled token."""
        return int(lib.llama_sampler_sample(self._chain, context.pointer, index))

    def draw(self, logits: npt.NDArray[np.float32]) -> tuple[int, Callable[[], npt.NDArray[np.float64]]]:
        """Sample from ``logits`` as ``sample`` does, but do not count the token. ``accept`` must follow.

        Returns:
            The token, and a function that returns the [vocab_size] probabilities that it was drawn with, to be called
            before the chain is used again.

        Source: llama.cpp, src/llama-sampler.cpp, llama_sampler_sample, which does the same and keeps no probabilities.
        """
        candidates = np.zeros(logits.size, _CANDIDATE)
        candidates["id"] = np.arange(logits.size)
        candidates["logit"] = logits
        data = candidates.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))
        array = lib.llama_token_data_array(data=data, size=logits.size, selected=-1, sorted=False)
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        # The samplers may have put the candidates into memory of their own.
        kept = np.ctypeslib.as_array(
            ctypes.cast(array.data, ctypes.POINTER(ctypes.c_byte)), (array.size * _CANDIDATE.itemsize,)
        )
        found = kept.view(_CANDIDATE)
        token = int(found["id"][array.selected])

        def probabilities() -> npt.NDArray[np.float64]:
            drawn = np.zeros(candidates.size)
            if self._is_greedy:
                drawn[token] = 1.0
            else:
                drawn[found["id"]] = found["p"]
                drawn /= drawn.sum()
            return drawn

        return token, probabilities

    def draw_among(self, ids: npt.NDArray[np.intp], logits: npt.NDArray[np.float32], *, is_sorted: bool) -> int:
        """Draw from what the samplers of the chain would leave, and return the token, which is not counted.

        Args:
            ids: the candidates.
            logits: theirs, divided by the temperature.
            is_sorted: whether the first one has the highest.
        """
        candidates = np.zeros(ids.size, _CANDIDATE)
        candidates["id"], candidates["logit"] = ids, logits
        data = candidates.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))
        array = lib.llama_token_data_array(data=data, size=ids.size, selected=-1, sorted=is_sorted)
        lib.llama_sampler_apply(self._dist, ctypes.byref(array))
        return int(ids[array.selected])

    def accept(self, token: int) -> None:
        """Count a token of the answer."""
        lib.llama_sampler_accept(self._chain, token)

    def is_certain(self, _logits: npt.NDArray[np.float32], _token: int) -> bool:
        """Return True: a draw from slightly different logits is as good."""
        return True

    def free(self) -> None:
        """Free the chain now."""
        self._free()

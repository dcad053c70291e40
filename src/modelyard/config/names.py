"""The names that keys of a configuration are limited to."""

from __future__ import annotations

from typing import Literal

Command = Literal["serve", "run"]
Kind = Literal["auto", "text", "embedding", "rerank", "multimodal", "diffusion", "speech"]
# Names in modelyard.engine.formats.registry and modelyard.engine.formats.reasoning, which are above the configuration.
ToolFormatName = Literal[
    "apertus",
    "apriel",
    "command",
    "command-r",
    "deepseek",
    "deepseek-v3.1",
    "deepseek-v3.2",
    "deepseek-v4",
    "deepseek-v4.1",
    "function-gemma",
    "functionary",
    "gemma",
    "generic",
    "gigachat",
    "gigachat-3",
    "glm",
    "granite",
    "harmony",
    "hermes",
    "hunyuan",
    "kimi-k2",
    "kimi-k3",
    "lfm2",
    "llama3",
    "llama4",
    "minicpm",
    "minimax-m1",
    "minimax-m2",
    "minimax-m3",
    "mistral",
    "mistral-args",
    "mistral-call-id",
    "muse",
    "nemotron",
    "olmo3",
    "phi",
    "qwen3-coder",
    "seed",
    "solar",
]
ReasoningFormatName = Literal[
    "none",
    "apertus",
    "apriel",
    "command",
    "gemma",
    "hunyuan",
    "kimi-k3",
    "minimax",
    "mistral",
    "seed",
    "solar",
    "think",
]

Load = Literal["startup", "on-demand"]
Origin = Literal["configured", "added", "discovered"]
StoreName = Literal["all", "huggingface", "ollama", "lmstudio", "llama.cpp", "gpt4all"]
Isolation = Literal["auto", "thread", "process"]
KvKeep = Literal["off", "memory", "disk"]
NodePlacement = Literal["spread", "pack"]
KvType = Literal["f16", "q8_0"]
Dtype = Literal["auto", "bf16", "f16", "f32"]
FileFormat = Literal["plain", "gguf", "ggml"]
SplitMode = Literal["none", "layer", "row"]

"""Turns the model that a configuration names into files on disk."""

from modelyard.formats.gguf.header import GgufHeader
from modelyard.formats.gguf.read import read_header
from modelyard.formats.gguf.values import GgufArray, GgufTensor
from modelyard.hub.preparation.estimate import estimate_files
from modelyard.hub.preparation.plan import FilePlan, Stores, plan_files, plan_options
from modelyard.hub.preparation.prepare import prepare, resolve
from modelyard.hub.preparation.uqff_export import UqffExport, export_uqff, parse_types
from modelyard.hub.select.gguf import FileChoice, choose_gguf
from modelyard.hub.select.kind import POOLED_KINDS, Kind
from modelyard.hub.select.modalities import Modalities
from modelyard.hub.select.model_files import ModelFiles
from modelyard.hub.select.select import FileRequest
from modelyard.hub.sources.converted import ConvertedModels
from modelyard.hub.sources.downloaded import Download, Downloads
from modelyard.hub.sources.huggingface import Hub
from modelyard.hub.sources.listing import OnProgress, Progress

__all__ = [
    "POOLED_KINDS",
    "ConvertedModels",
    "Download",
    "Downloads",
    "FileChoice",
    "FilePlan",
    "FileRequest",
    "GgufArray",
    "GgufHeader",
    "GgufTensor",
    "Hub",
    "Kind",
    "Modalities",
    "ModelFiles",
    "OnProgress",
    "Progress",
    "Stores",
    "UqffExport",
    "choose_gguf",
    "estimate_files",
    "export_uqff",
    "parse_types",
    "plan_files",
    "plan_options",
    "prepare",
    "read_header",
    "resolve",
]

"""How what a configuration names becomes the files of a model on disk."""

from modelyard.hub.choose import Choice, choose_gguf
from modelyard.hub.converted import ConvertedModels
from modelyard.hub.decide import Wanted
from modelyard.hub.downloaded import Download, Downloads
from modelyard.hub.gguf_header import GgufHeader, read_header
from modelyard.hub.gguf_values import GgufArray, GgufTensor
from modelyard.hub.kind import POOLED_KINDS, Kind
from modelyard.hub.listing import OnProgress, Progress
from modelyard.hub.model_files import ModelFiles
from modelyard.hub.plan import FilePlan, Stores, plan_files
from modelyard.hub.prepare import prepare, resolve
from modelyard.hub.repository import Hub
from modelyard.hub.senses import Senses
from modelyard.hub.sketch import sketch_files
from modelyard.hub.uqff_export import UqffExport, export_uqff, parse_types

__all__ = [
    "POOLED_KINDS",
    "Choice",
    "ConvertedModels",
    "Download",
    "Downloads",
    "FilePlan",
    "GgufArray",
    "GgufHeader",
    "GgufTensor",
    "Hub",
    "Kind",
    "ModelFiles",
    "OnProgress",
    "Progress",
    "Senses",
    "Stores",
    "UqffExport",
    "Wanted",
    "choose_gguf",
    "export_uqff",
    "parse_types",
    "plan_files",
    "prepare",
    "read_header",
    "resolve",
    "sketch_files",
]

#!/usr/bin/env bash
# Checks a machine with a GPU, in at most five minutes after the build, and prints a table.
#
#     scripts/gpu_check.sh [MODEL.gguf MODEL.gguf]
#
# It installs Modelyard for the GPU that the machine has (MODELYARD_BACKEND decides by hand), and serves the demo models, or
# two others. Without a GPU it checks the CPU, and the rows that need a device say so. Exit status 1: a row failed.
set -euo pipefail
cd "$(dirname "$0")/.."
make install
exec timeout --kill-after=30 300 .venv/bin/python scripts/gpu_check.py "$@"

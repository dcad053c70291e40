"""The two names of a model, of different types, so that neither is used in place of the other."""

from __future__ import annotations

from typing import NewType

ModelId = NewType("ModelId", str)
"""The id of a configured model, as users know it. Counters, metrics, the log and the API use it."""

ResidencyName = NewType("ResidencyName", str)
"""The name under which the residency keeps one version of a model. States, profiles, engines and files are found by it.

It is the id until settings of the model change while it serves: the new engine then runs beside the old one, under a
name of its own such as "smollm2 #2".
"""

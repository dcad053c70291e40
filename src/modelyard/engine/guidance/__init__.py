"""Constrained answers: llguidance computes which tokens a grammar allows next."""

from modelyard.engine.guidance.compiler import GrammarCompiler
from modelyard.engine.guidance.constraint import Constraint, ConstraintBroken, prepare
from modelyard.engine.guidance.vocabulary import Vocabulary

__all__ = ["Constraint", "ConstraintBroken", "GrammarCompiler", "Vocabulary", "prepare"]

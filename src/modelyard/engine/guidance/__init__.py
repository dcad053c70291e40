"""Answers that must follow a grammar: llguidance says which tokens may come next."""

from modelyard.engine.guidance.compiler import GrammarCompiler
from modelyard.engine.guidance.constraint import Constraint, ConstraintBroken
from modelyard.engine.guidance.vocabulary import Vocabulary

__all__ = ["Constraint", "ConstraintBroken", "GrammarCompiler", "Vocabulary"]

"""A day of traffic on a machine whose loads, prompts and tokens take time: what policies of residency are worth.

``play`` has a policy serve the requests of a ``Day``, and returns what their callers saw of it. The policy that serves
is ``modelyard.yard.residency``; the others are what it is compared with.

    traffic    the models and requests of a day, from a seed
    machine    how long things take
    sharing    work that shares processors or a disk
    engine     prompts and answers that one model computes
    day        the events of a day, in their order
    policies   the residency, least recently used by count and by bytes
    oracle     a policy that knows all requests beforehand
    report     several days as a table
"""

from support.costs.day import Outcome, play
from support.costs.machine import Machine
from support.costs.traffic import Day, Traffic, day_of

__all__ = ["Day", "Machine", "Outcome", "Traffic", "day_of", "play"]

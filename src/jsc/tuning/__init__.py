"""Offline selection: tune a network on a sample, keep the plan, apply it.

plan = jsc.tune(model, sample)      measure every layer's methods on its real activations
print(plan)                         layer, density, method, times, gain, memory, reason
plan.save("plan.json")              plain JSON; jsc.Plan.load("plan.json") elsewhere
fast = jsc.apply(model, plan)       same parameters, same state_dict keys
model = jsc.restore(fast)           back to nn.Conv2d

The modules stay live: they follow what is trained, loaded or hooked.

    tuner     `tune`: a copy of the network, layer by layer, then as a whole
    capture   running a network on a sample and observing its convolutions
    measure   every method of one layer, checked and timed on what the layer gets
    memory    bytes of a map in the form of each method
    timing    functions timed in turn, deadlines
    whole     the network with and without a plan
    applying, convert   `apply`, `restore`
    sparsify  `sparsify`, `HoyerSquare`: more zeros on purpose, for networks that are fine-tuned
    plan/     the plan as data and as a file
"""

from jsc.tuning.applying import apply as apply
from jsc.tuning.convert import restore as restore
from jsc.tuning.plan.environment import Environment as Environment
from jsc.tuning.plan.errors import PlanError as PlanError
from jsc.tuning.plan.errors import PlanWarning as PlanWarning
from jsc.tuning.plan.plan import LayerChoice as LayerChoice
from jsc.tuning.plan.plan import Plan as Plan
from jsc.tuning.sparsify import HoyerSquare as HoyerSquare
from jsc.tuning.sparsify import sparsify as sparsify
from jsc.tuning.tuner import tune as tune

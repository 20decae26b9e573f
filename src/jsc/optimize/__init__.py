"""Offline selection of convolution methods: tune a network on a sample, keep the plan, apply it.

plan = jsc.tune(model, sample)      measure every layer's methods on its real activations
print(plan)                         layer, density, method, times, gain, memory, reason
plan.save("plan.json")              plain JSON; jsc.Plan.load("plan.json") elsewhere
fast = jsc.apply(model, plan)       same parameters, same state_dict keys
model = jsc.restore(fast)           back to nn.Conv2d

The modules stay live: what is trained, loaded or hooked is followed. `fuse=True` gives that up.
"""

from jsc.optimize.apply import apply as apply
from jsc.optimize.convert import restore as restore
from jsc.optimize.environment import Environment as Environment
from jsc.optimize.errors import PlanError as PlanError
from jsc.optimize.errors import PlanWarning as PlanWarning
from jsc.optimize.plan import LayerChoice as LayerChoice
from jsc.optimize.plan import Plan as Plan
from jsc.optimize.tune import optimize as optimize
from jsc.optimize.tune import tune as tune

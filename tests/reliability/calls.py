"""The public callables of jsc, each with right arguments; the fuzzer spoils some of them."""

from __future__ import annotations

from tests.reliability import calls_conv, calls_jpeg, calls_network, calls_plan

CALLS = [*calls_jpeg.CALLS, *calls_conv.CALLS, *calls_network.CALLS, *calls_plan.CALLS]

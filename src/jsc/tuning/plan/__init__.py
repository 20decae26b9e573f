"""Plans: which method each layer takes, and the figures behind it; checked JSON.

plan         `Plan` and `LayerChoice`: plain data, checked when it is made
schema       the rules for single values
strict_json  JSON with nothing that two readers could read differently, and a checksum
table        a plan as text, Markdown and HTML
environment  where a plan was measured
errors       `PlanError`, `PlanWarning`
"""

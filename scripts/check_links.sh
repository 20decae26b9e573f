#!/bin/sh
# The links of the site. Those between its pages must hold: Sphinx makes errors of those that do not. Links to
# other sites are followed where there is a network.
set -eu
python=$1
export OMP_WAIT_POLICY=passive MPLBACKEND=agg
"$python" -m sphinx -W --keep-going -q -b dummy -c docs . out/linkcheck
reach='from urllib.request import urlopen; urlopen("https://arxiv.org", timeout=10)'
if ! "$python" -c "$reach" 2>/dev/null; then
    echo "jsc: links between pages hold; there is no network, so those to other sites were not followed"
    exit 0
fi
"$python" -m sphinx -q -b linkcheck -c docs . out/linkcheck
echo "jsc: all links hold"

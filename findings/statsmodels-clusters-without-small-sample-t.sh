#!/usr/bin/env bash
# Guess: with cov_type="cluster" the p-value of an OLS fit accounts for the few clusters, as its t-table heading for an ordinary fit
#   suggests: t with G - 1 degrees of freedom, since the fit knows G.
# Version: statsmodels 0.15.0 (scipy 1.17.1, numpy 2.4.6)
# Behaviour: asking for a cluster-robust covariance also switches the reference distribution from t to normal (use_t becomes
#   False). On 500 tasks in the 12 repositories of SWE-bench Verified, of which one has 231, a test at 5 % rejects a true null
#   in about 23 % of the data sets, and with use_t=True still in about 18 %.
# Output: ordinary fit uses t: True; clustered fit uses t: False; false positives at 5 %: normal 23.4 %, t 18.0 %
# Why here: "standard errors clustered by repository" is the usual advice for agent benchmarks, and this is the usual library. aem
#   compare uses CR2 standard errors with the degrees of freedom of Bell and McCaffrey (3.3 here), measured by simulation.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - << 'EOF'
import numpy as np
import statsmodels.api as sm

sizes = [231, 75, 44, 34, 32, 22, 22, 19, 10, 8, 2, 1]
groups = np.repeat(np.arange(len(sizes)), sizes)
random, ones, repetitions = np.random.default_rng(0), np.ones(len(groups)), 1000
rejected = {None: 0, True: 0}
for _ in range(repetitions):
    y = 0.5 * random.normal(size=len(sizes))[groups] + random.normal(size=len(groups))  # the mean is truly 0
    for use_t in rejected:
        fit = sm.OLS(y, ones).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=use_t)
        rejected[use_t] += fit.pvalues[0] < 0.05
ordinary, clustered = sm.OLS(y, ones).fit(), sm.OLS(y, ones).fit(cov_type="cluster", cov_kwds={"groups": groups})
share = {use_t: count / repetitions for use_t, count in rejected.items()}
print(f"ordinary fit uses t: {bool(ordinary.use_t)}; clustered fit uses t: {bool(clustered.use_t)}; "
      f"false positives at 5 %: normal {100 * share[None]:.1f} %, t {100 * share[True]:.1f} %")
assert ordinary.use_t and not clustered.use_t
assert share[None] > 0.15 and share[True] > 0.10
EOF

"""What is searched, and how: spaces, searchers, Optuna's samplers, schedulers.

Schedulers are configuration only; Ray is not imported. Imports the ground alone. A new way to search is a class in
`tuner.search.planned` (drawn up before the job) or `tuner.search.adaptive` (asks Optuna), and a name in the union here.
"""

from typing import Annotated

from pydantic import Field

from tuner.search.adaptive import CMAES, Bayesian, Evolution
from tuner.search.planned import QMC, Grid, Random

SearchConfig = Annotated[Grid | Random | QMC | Bayesian | CMAES | Evolution, Field(discriminator="kind")]

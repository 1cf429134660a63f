"""Search spaces, searchers, Optuna's samplers, and the configuration of schedulers.

Imports the ground alone; Ray is not imported. To add a search, write a class in `tuner.search.planned` (all
configurations are known before the job) or in `tuner.search.adaptive` (Optuna suggests them), and add it to the union.
"""

from typing import Annotated

from pydantic import Field

from tuner.search.adaptive import CMAES, Bayesian, Evolution
from tuner.search.planned import QMC, Grid, Random

SearchConfig = Annotated[Grid | Random | QMC | Bayesian | CMAES | Evolution, Field(discriminator="kind")]
